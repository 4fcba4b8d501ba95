"""Alias analysis: which memory the pointer arguments may share.

Pointer arguments are assumed not to alias, as with LLVM's `noalias`. So values stay in registers from a load to a
store. Each launch checks the assumptions of the code (see `launcher`). Where they do not hold, the kernel is compiled
again without them. A kernel may work in place without a check if each lane writes only elements that it alone has read:
if its addresses are injective. For strides known only at launch, the launch checks that (see `injective`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fusetune.kernels.cpu.lowering.injective import injective

if TYPE_CHECKING:
    from fusetune.kernels.cpu.ir_tree import Value
    from fusetune.kernels.cpu.lowering.addresses import Addresses

Masks = tuple["Value | None", "Value | None"]
# Two arguments by their numbers, the smaller first, and whether they may still be the same pointer.
Apart = tuple[int, int, bool]


@dataclass
class Overlaps:
    """The pointer arguments of one function.

    Args:
        any_may: any two of them may alias.
    """

    any_may: bool
    _apart: dict[tuple[int, int], bool] = field(default_factory=dict)
    _conditions: dict[str, None] = field(default_factory=dict)

    @property
    def apart(self) -> list[Apart]:
        """The arguments that were assumed not to alias."""
        return [(first, second, if_equal) for (first, second), if_equal in self._apart.items()]

    @property
    def conditions(self) -> list[str]:
        """The other assumptions: C conditions in the kernel's arguments."""
        return list(self._conditions)

    def may_meet(
        self,
        addresses: Addresses,
        first: Value,
        second: Value,
        masks: Masks = (None, None),
        in_own_lane: bool = True,
    ) -> bool:
        """Return whether two pointers, or tiles of them, may alias in different lanes.

        Args:
            masks: of the accesses.
            in_own_lane: a lane uses elements at the same index of both.
        """
        a, b = addresses.root(first), addresses.root(second)
        if a is None or b is None or a is b:
            return True
        if a not in addresses.arguments or b not in addresses.arguments:
            return False  # one is loaded from a table, whose pointers are assumed to alias no argument
        if self.any_may:
            return True
        one, other = sorted((addresses.arguments[a], addresses.arguments[b]))
        lane_by_lane = (
            in_own_lane
            and addresses.is_same_place(first, second)
            and self.is_injective(addresses, first, masks, f"(void *)arg{one} != (void *)arg{other} || ")
        )
        self._apart[one, other] = self._apart.get((one, other), True) and lane_by_lane
        return False

    def is_injective(self, addresses: Addresses, pointer: Value, masks: Masks, unless: str = "") -> bool:
        """Return whether the addresses of the lanes are injective. Record the condition, if there is one.

        Args:
            unless: C condition with which it need not hold, followed by an or.
        """
        found = injective(addresses, pointer, masks)
        if isinstance(found, str):
            if not self.any_may:
                self._conditions[f"({unless}{found})"] = None
            return not self.any_may
        return found
