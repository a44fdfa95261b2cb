"""What a contender costs: CPU seconds and memory of its process trees, and how far it is, seen from outside."""

import threading
from types import TracebackType

import psutil
import pyarrow.fs
import pyarrow.parquet as pq

from deploy.seaweedfs import SeaweedFS

SAMPLE_SECONDS = 0.1


class Meter:
    """Samples some process trees from entering to leaving: `cpu_seconds` spent meanwhile, `peak_rss` in bytes.

    Children are counted from when they are first seen; one that ends keeps the time of its last sample. RSS is
    summed over the processes, so that what they share counts twice.
    """

    def __init__(self, pids: list[int]) -> None:
        self._roots = [psutil.Process(pid) for pid in pids]
        self._first: dict[int, float] = {}
        self._last: dict[int, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="meter")
        self.peak_rss = 0

    @property
    def cpu_seconds(self) -> float:
        return sum(last - self._first[pid] for pid, last in self._last.items())

    def __enter__(self) -> "Meter":
        for process in self._processes():  # what they spent before does not count
            self._first[process.pid] = _cpu(process)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            last = self._stop.wait(SAMPLE_SECONDS)
            memory = 0
            for process in self._processes():
                try:
                    self._last[process.pid] = _cpu(process)
                    memory += process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue  # ended between two looks
                self._first.setdefault(process.pid, 0.0)
            self.peak_rss = max(self.peak_rss, memory)
            if last:
                return

    def _processes(self) -> list[psutil.Process]:
        found: list[psutil.Process] = []
        for root in self._roots:
            try:
                found += [root, *root.children(recursive=True)]
            except psutil.NoSuchProcess:
                continue
        return found


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


class Bucket:
    """The Parquet files of one bucket, whoever wrote them."""

    def __init__(self, store: SeaweedFS, name: str) -> None:
        self.name = name
        self._files = pyarrow.fs.S3FileSystem(
            access_key=store.credentials["AWS_ACCESS_KEY_ID"],
            secret_key=store.credentials["AWS_SECRET_ACCESS_KEY"],
            endpoint_override=store.endpoint.removeprefix("http://"),
            scheme="http",
            region=store.credentials["AWS_DEFAULT_REGION"],
            allow_bucket_creation=True,
        )
        self._rows: dict[str, int] = {}
        self._files.create_dir(name)

    def rows(self) -> int:
        """Rows of all files, from their footers; each footer is read once."""
        found = self._files.get_file_info(pyarrow.fs.FileSelector(self.name, recursive=True))
        for file in found:
            if file.path.endswith(".parquet") and file.path not in self._rows:
                self._rows[file.path] = pq.read_metadata(file.path, filesystem=self._files).num_rows
        return sum(self._rows.values())

    def files(self) -> int:
        return len(self._rows)

    def distinct(self, column: str) -> int:
        """How many different values a column has over all files."""
        tables = (pq.read_table(path, columns=[column], filesystem=self._files) for path in self._rows)
        return len(pyarrow.concat_tables(tables)[column].unique())
