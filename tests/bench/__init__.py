"""CPU, memory and manners of this gateway and of others, side by side on one machine.

Each target stands between a mock model and a load that checks every token of every stream. Targets
are measured one at a time, in turns, on a core of their own; model and load share another.

How to read the figures:
- Compare only inside one run: the same target differs by a fifth from one day to another.
- S1 flatters a saturated server: what it is late with, it reads and writes in bigger pieces.
  S2 is the like-for-like cost.
- A figure counts only if no stream failed and no token was wrong; else it says "failed".
- Noise is CPU that others used on the target's core. A noisy run is repeated, up to twice, and the
  quietest ones count; a report with much of it left should be thrown away.
"""
