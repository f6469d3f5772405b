"""A dialogue drawn from its table: a Mermaid diagram of the ways between stages, and every row in words."""

from collections.abc import Iterator
from typing import Any

from voice_agent.agent.dialogue import SAME, SYSTEM_EVENTS, Row, Stage, Table


def draw(table: Table[Any]) -> str:
    """Return the dialogue as a page of Markdown."""
    return "\n".join(
        (
            f"# The dialogue `{table.name}`",
            "",
            "Drawn from the dialogue's table; it can't differ from what the agent does.",
            "",
            "## The ways between stages",
            "",
            "Hang-up, silence, failures and the limit of the whole talk lead to the end from every stage, and are left out here.",
            "",
            "```mermaid",
            "stateDiagram-v2",
            f"    [*] --> {_id(table.stages[0].name)}",
            *_arrows(table),
            "```",
            "",
            "## Stages",
            "",
            f"The whole talk ends after {table.limit_seconds:g} s.",
            "",
            "| stage | limit | required facts | asks |",
            "|---|---|---|---|",
            *map(_stage_line, table.stages),
            "",
            "## Every row",
            "",
            "`=` stays in the stage; a row holds when all its conditions do.",
            "",
            "| stage | event | when | next | does |",
            "|---|---|---|---|---|",
            *_rows(table),
            "",
        )
    )


def _arrows(table: Table[Any]) -> Iterator[str]:
    events: dict[tuple[str, str], list[str]] = {}
    for (stage, event), rows in table.cells.items():
        if event in SYSTEM_EVENTS:
            continue
        for row in rows:
            labels = events.setdefault((stage, stage if row.to == SAME else row.to), [])
            if event not in labels:
                labels.append(event)
    for (stage, to), labels in events.items():
        if stage != to:
            told = "anything" if set(labels) == set(table.events) else ", ".join(labels)
            yield f"    {_id(stage)} --> {_id(to)} : {told}"
    for last in table.stages:
        if last.is_final:
            yield f"    {_id(last.name)} --> [*]"


def _id(name: str) -> str:
    return name.replace(" ", "_")


def _stage_line(stage: Stage) -> str:
    if stage.is_final:
        return f"| {stage.name} | | | the end |"
    return f"| {stage.name} | {stage.limit_seconds:g} s | {', '.join(stage.requires)} | {stage.question} |"


def _rows(table: Table[Any]) -> Iterator[str]:
    """Write the cells, those together whose rows are the same."""
    groups: dict[tuple[str, tuple[int, ...]], tuple[list[str], tuple[Row, ...]]] = {}
    for (stage, event), rows in table.cells.items():
        key = (stage, tuple(map(id, rows)))
        groups.setdefault(key, ([], rows))[0].append(event)
    for (stage, _), (events, rows) in groups.items():
        for row in rows:
            does = " ".join((*row.do, *(f"[{name} = {value}]" for name, value in row.sets.items())))
            to = "=" if row.to in {SAME, stage} else row.to
            yield f"| {stage} | {', '.join(events)} | {', '.join(row.when)} | {to} | {does} |"
