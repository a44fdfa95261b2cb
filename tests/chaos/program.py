"""One process of Tukang, a worker or an API, as a test sees it that may kill it and start it again."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from deploy.part import LOOPBACK, Part


@dataclass
class Program:
    """One process of Tukang that the test may kill and start again."""

    name: str
    part: Part
    port: int = 0  # of its metrics, or of the API
    expected: bool = True  # it should be running
    starts: int = field(default=1)

    @property
    def process(self) -> Any:
        return self.part.process

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def signal(self, number: int) -> None:
        if self.running:
            self.process.send_signal(number)

    def pause(self, number: int) -> None:
        """SIGSTOP or SIGCONT to the process and its children."""
        if self.running:
            for each in [
                psutil.Process(self.process.pid),
                *psutil.Process(self.process.pid).children(recursive=True),
            ]:
                with suppress(psutil.NoSuchProcess):
                    each.send_signal(number)

    def kill(self) -> None:
        """kill -9 of the process and its children."""
        if not self.running:
            return
        children = psutil.Process(self.process.pid).children(recursive=True)
        self.process.kill()
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        self.process.wait()

    def rss(self) -> int:
        """Resident bytes of the process."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def metric(self, name: str, **labels: str) -> float | None:
        """A figure of the worker; None: it does not tell, or has no such figure."""
        try:
            text = httpx.get(f"http://{LOOPBACK}:{self.port}/metrics", timeout=10).text
        except httpx.TransportError:
            return None
        found = [
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        return sum(found) if found else None
