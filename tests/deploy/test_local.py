"""The embedded stack comes up, notices what dies, and says in one line why it cannot start."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import boto3
import httpx
import pytest
from confluent_kafka.admin import AdminClient

from deploy.local import Stack
from deploy.part import StackError
from deploy.publish import make_topics

pytestmark = pytest.mark.slow


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with Stack(tmp_path / "stack", topics="orders", remove=True) as started:
        started.start_broker()
        started.start_store()
        started.start_api()
        yield started


def test_each_part_answers_at_its_address(stack: Stack) -> None:
    make_topics(stack.bootstrap, ["orders"], 3)
    make_topics(stack.bootstrap, ["orders"], 3)  # once more does no harm
    found = AdminClient({"bootstrap.servers": stack.bootstrap}).list_topics("orders", timeout=10)
    assert len(found.topics["orders"].partitions) == 3
    assert httpx.get(f"{stack.api_url}/health/ready").status_code == 200
    shell = subprocess.run(
        ["sh", "-c", '. "$0"; env', str(stack.write_environment())],
        capture_output=True,
        text=True,
        check=True,
    )
    told = dict(line.split("=", 1) for line in shell.stdout.splitlines() if "=" in line)
    store = boto3.client(
        "s3",
        endpoint_url=told["TUKANG_S3_ENDPOINT"],
        aws_access_key_id=told["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=told["AWS_SECRET_ACCESS_KEY"],
        region_name=told["AWS_DEFAULT_REGION"],
    )
    store.head_bucket(Bucket=told["TUKANG_BUCKET"])


def test_a_part_that_dies_is_noticed_and_named(stack: Stack) -> None:
    stack.check()
    api = stack.parts[-1]
    assert api.process is not None
    api.process.kill()
    api.process.wait()
    with pytest.raises(StackError, match="api ended, and should not have"):
        stack.check()


def test_the_folder_of_a_stack_goes_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "stack"
    with Stack(folder, topics="orders", remove=True) as started:
        started.start_broker()
        assert folder.exists()
    assert not folder.exists()
    assert not started.parts


def test_the_folder_of_a_stack_stays_when_asked(tmp_path: Path) -> None:
    with Stack(tmp_path / "kept", topics="orders") as started:
        started.start_api()
    assert (tmp_path / "kept" / "catalogue.db").exists()


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(StackError, match="file/stack cannot be used"),
        Stack(tmp_path / "file/stack", topics="orders"),
    ):
        pass


def test_a_disk_without_room_is_said_before_anything_starts(tmp_path: Path) -> None:
    with (
        pytest.raises(StackError, match=r"GB free, and the stack wants 10000000\d\d\.\d GB"),
        Stack(tmp_path, topics="orders", needed_bytes=10**18),
    ):
        pass
