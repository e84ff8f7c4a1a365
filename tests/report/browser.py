"""A page in a real headless Chromium, as a reader would open it."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--no-first-run", "--disable-extensions"),
    "--host-resolver-rules=MAP * ~NOTFOUND",
)


@dataclass(frozen=True, kw_only=True)
class Opened:
    """What came of it."""

    dom: str
    console: list[str]
    """Lines that the page left there."""
    requests: list[str]
    """Addresses that were asked for, but for the file itself."""


def opened(page: Path, *, width: int = 1100, dark: bool = False) -> Opened:
    """Load `page` in a window of that width."""
    assert CHROMIUM is not None
    theme = ["--blink-settings=preferredColorScheme=0"] if dark else []
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "net.json"
        done = subprocess.run(
            [
                *(CHROMIUM, *QUIET, *theme, f"--user-data-dir={folder}/profile"),
                *(f"--window-size={width},900", "--enable-logging=stderr", "--v=0"),
                *(f"--log-net-log={log}", "--dump-dom", page.as_uri()),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found = json.loads(log.read_text())
    params = [event.get("params", {}) for event in found["events"]]
    # what the browser asks for of its own accord has no origin; a file's page has the origin null
    urls = {str(one["url"]) for one in params if "url" in one and one.get("initiator") == "null"}
    return Opened(
        dom=done.stdout,
        console=[line for line in done.stderr.splitlines() if "CONSOLE" in line],
        requests=sorted(url for url in urls if not url.startswith("data:")),
    )
