"""What `regrow verify` prints."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.verification.verify import Verified


def lines(found: Verified) -> Iterator[str]:
    """The table, and the first broken link with what to do about it."""
    if found.rows:
        yield f"{'stage':<10} {'artifact':<16} {'files':>6} {'bytes':>15}  {'digest':<16}  "
    for row in found.rows:
        files, size = (f"{row.files:,}", f"{row.size:,}") if row.files else ("", "")
        yield f"{row.stage:<10} {row.what:<16} {files:>6} {size:>15}  {row.digest[:16]:<16}  {row.state}"
    if not found.broken:
        return
    first, others = found.broken[0], {link.file for link in found.broken[1:]} - {found.broken[0].file}
    yield f"\nThe first broken link is in {first.stage}: {first.file}"
    yield f"  {first.problem}"
    yield f"  {first.remedy}"
    if others:
        yield f"After it: {', '.join(sorted(others)[:5])}{' and more' if len(others) > 5 else ''}."
