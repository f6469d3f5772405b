"""What gold is made of: how fine each number of karats is, and its hallmark."""

from decimal import Decimal
from typing import Final

FINENESS: Final = {
    24: Decimal(1),
    22: Decimal("0.916"),
    18: Decimal("0.75"),
    14: Decimal("0.585"),
}
"""Parts of pure gold, as lenders reckon with them; what is not in the table is not lent on."""

HALLMARKS: Final = {"999": 24, "995": 24, "916": 22, "750": 18, "585": 14}
"""What the hallmark of the Bureau of Indian Standards (IS 1417) says in thousandths, and the karats that it is taken for."""
