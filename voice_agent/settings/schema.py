"""Every setting: its default, its unit, its range and one line of why; a section a file below ``sections``.

This is the single source. ``settings.toml`` is written from it and a test holds the two together; a setting that no
code reads fails a test too.
"""

import attrs

from voice_agent.settings.sections.access import AccessSettings
from voice_agent.settings.sections.admission import AdmissionSettings
from voice_agent.settings.sections.agent import AgentSettings
from voice_agent.settings.sections.chat import ChatSettings
from voice_agent.settings.sections.cluster import ClusterSettings
from voice_agent.settings.sections.ears import EarsSettings
from voice_agent.settings.sections.gold import GoldSettings
from voice_agent.settings.sections.hearing import AudioSettings, RecogniserSettings, VadSettings
from voice_agent.settings.sections.limits import LimitsSettings
from voice_agent.settings.sections.logging import LoggingSettings
from voice_agent.settings.sections.readiness import ReadinessSettings
from voice_agent.settings.sections.server import ServerSettings
from voice_agent.settings.sections.session import SessionSettings
from voice_agent.settings.sections.store import StoreSettings
from voice_agent.settings.sections.tracing import TracingSettings
from voice_agent.settings.sections.voice import VoiceSettings
from voice_agent.settings.sections.webrtc import WebRtcSettings
from voice_agent.settings.sections.websocket import WebSocketSettings

__all__ = [
    "AccessSettings",
    "AdmissionSettings",
    "AgentSettings",
    "AudioSettings",
    "ChatSettings",
    "ClusterSettings",
    "EarsSettings",
    "GoldSettings",
    "LimitsSettings",
    "LoggingSettings",
    "ReadinessSettings",
    "RecogniserSettings",
    "ServerSettings",
    "SessionSettings",
    "Settings",
    "StoreSettings",
    "TracingSettings",
    "VadSettings",
    "VoiceSettings",
    "WebRtcSettings",
    "WebSocketSettings",
]


@attrs.frozen(kw_only=True)
class Settings:
    """Everything an operator can choose."""

    server: ServerSettings = attrs.field(factory=ServerSettings)
    access: AccessSettings = attrs.field(factory=AccessSettings)
    websocket: WebSocketSettings = attrs.field(factory=WebSocketSettings)
    webrtc: WebRtcSettings = attrs.field(factory=WebRtcSettings)
    limits: LimitsSettings = attrs.field(factory=LimitsSettings)
    admission: AdmissionSettings = attrs.field(factory=AdmissionSettings)
    session: SessionSettings = attrs.field(factory=SessionSettings)
    audio: AudioSettings = attrs.field(factory=AudioSettings)
    ears: EarsSettings = attrs.field(factory=EarsSettings)
    vad: VadSettings = attrs.field(factory=VadSettings)
    recogniser: RecogniserSettings = attrs.field(factory=RecogniserSettings)
    voice: VoiceSettings = attrs.field(factory=VoiceSettings)
    agent: AgentSettings = attrs.field(factory=AgentSettings)
    chat: ChatSettings = attrs.field(factory=ChatSettings)
    gold: GoldSettings = attrs.field(factory=GoldSettings)
    store: StoreSettings = attrs.field(factory=StoreSettings)
    cluster: ClusterSettings = attrs.field(factory=ClusterSettings)
    logging: LoggingSettings = attrs.field(factory=LoggingSettings)
    readiness: ReadinessSettings = attrs.field(factory=ReadinessSettings)
    tracing: TracingSettings = attrs.field(factory=TracingSettings)
