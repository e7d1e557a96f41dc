"""What came of the demo: counted, judged, and told in plain words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections import Counter

    from readme_metrics.queue.contract import Books


@dataclass(frozen=True)
class Result:
    """The figures of the clients, of the queue and of the server."""

    sent: int
    answered: list[str]
    """Ids of the entries whose client has its whole answer."""
    books: Books
    times_received: Counter[str]
    """How often the server got each id."""
    leaks: int
    """Files of the queue and entries at the server that hold the password."""
    sample: dict[str, Any] | None
    """An entry as the server got it."""

    @property
    def missing(self) -> list[str]:
        """Answered, and never arrived."""
        return [entry_id for entry_id in self.answered if entry_id not in self.times_received]

    @property
    def lost(self) -> int:
        """Answered and never arrived, or captured and never arrived: whichever is more."""
        return max(len(self.missing), self.books.accepted - len(self.times_received))

    @property
    def twice(self) -> int:
        """Arrived more than once."""
        return sum(times > 1 for times in self.times_received.values())

    @property
    def well(self) -> bool:
        """Every promise was kept."""
        return not self.lost and not self.leaks and self.books.balanced

    def told(self, took_s: float) -> str:
        """Everything a person wants to know."""
        cut_off = self.sent - len(self.answered)
        lines = [
            "",
            f"  sent        {self.sent:5}  requests: JSON, form, upload, stream, error",
            f"  answered    {len(self.answered):5}  {f'{cut_off} cut off by kill -9' if cut_off else ''}".rstrip(),
            f"  captured    {self.books.accepted:5}  entries in the queue's books",
            f"  delivered   {len(self.times_received):5}  entries at the server",
            f"  sent twice  {self.twice:5}",
            f"  lost        {self.lost:5}",
            *(f"              missing: {entry_id}" for entry_id in self.missing),
            "",
            *(_shown(self.sample) if self.sample else ()),
            "",
            self._verdict(took_s),
        ]
        return "\n".join(lines)

    def _verdict(self, took_s: float) -> str:
        if self.well:
            return f"  Nothing was lost; the password is not in the queue nor in what was sent. It took {took_s:.0f} s."
        faults = [
            f"{self.lost} lost" if self.lost else "",
            f"the password is in {self.leaks} files or entries" if self.leaks else "",
            "" if self.books.balanced else f"the books do not balance: {self.books}",
        ]
        return f"  NOT WELL: {'; '.join(filter(None, faults))}. It took {took_s:.0f} s."


def _shown(entry: dict[str, Any]) -> list[str]:
    """The parts of an entry that fit a screen."""
    exchange = entry["request"]["log"]["entries"][0]
    request, response = exchange["request"], exchange["response"]
    fields = "&".join(f"{field['name']}={field['value']}" for field in request["postData"]["params"])
    caller = entry["group"]
    return [
        "  One entry as the server got it, shortened:",
        f"    _id       {entry['_id']}",
        f"    group     {caller['id'][:15]}…{caller['id'][-5:]}, {caller['label']}, {caller['email']}",
        f"    request   {request['method']} {request['url']}",
        f"    form      {fields}",
        f"    response  {response['status']} {response['statusText']}  {response['content'].get('text', '').strip()}",
    ]
