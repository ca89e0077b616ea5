"""The division of a batch among the calls that wait for it.

The oldest call gets a share, so that it always makes progress. The rest goes to the calls with the fewest
rows left, so that a call of one row does not wait behind a call of a thousand. Equal calls are completed one
after another: if all advanced together, each would finish as late as the last.
"""

from collections.abc import Sequence

__all__ = ["share"]

# The oldest call gets a share as if at most this many calls waited. With a smaller share, a long call would
# hardly progress beside many short ones.
_MAX_SHARES = 4


def share(rows_left: Sequence[int], space: int) -> list[int]:
    """Return the number of rows that each waiting call gets in the next batch.

    Args:
        rows_left: Rows that each call still has to run, each at least 1, the oldest call first.
        space: Maximum number of rows in the batch, at least 1.

    Returns:
        One number per call, in the same order, at most `rows_left`. Their sum is `space`, or the sum of
        `rows_left` if that is smaller.
    """
    if sum(rows_left) <= space:
        return list(rows_left)
    counts = [0] * len(rows_left)
    counts[0] = min(rows_left[0], max(1, space // min(len(rows_left), _MAX_SHARES)))
    space -= counts[0]
    needed = [rows_left[0] - counts[0], *rows_left[1:]]
    # The sort is stable: of equal calls, the older comes first.
    for index in sorted(range(len(needed)), key=needed.__getitem__):
        if not space:
            break
        more = min(needed[index], space)
        counts[index] += more
        space -= more
    return counts
