"""What all tests of the system share: their files run side by side, those that take longest first."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
FIRST = (
    "docker/test_stack.py",  # makes the images, while others need none yet
    "systemd/test_service.py",
    "systemd/test_install.py",
    "release/test_release.py",
    "browser/test_page.py",
    "docker/test_runtime.py",
    "docker/test_image.py",
    "systemd/test_workerctl.py",
    "docker/test_monitoring.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest come first: `--no-loadscope-reorder` leaves it so."""
    longest = {HERE / name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: longest.get(item.path, len(longest)))


@pytest.fixture(scope="session", autouse=True)
def _patient(clean_environment: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The scripts of the testbed install what is missing, each waits for the other; and a busy machine boots slowly."""
    configuration = tmp_path_factory.mktemp("apt") / "apt.conf"
    configuration.write_text('DPkg::Lock::Timeout "300";\n')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("APT_CONFIG", str(configuration))
        patch.setenv("TESTBED_BOOT_TIMEOUT", "200")
        patch.setenv("TESTBED_SYSTEMD_DIR", f"/tmp/testbed-systemd-{os.getpid()}")  # the last machine of one removes it
        yield
