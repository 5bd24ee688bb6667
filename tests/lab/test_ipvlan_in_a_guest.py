"""ipvlan on a kernel that has it: the demonstration's part, in the guest, with the real client and agent."""

import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]


def test_ipvlan_pods_and_a_vm_and_the_node_reach_each_other(lab_requirements: None) -> None:
    command = [sys.executable, "scripts/lib/demo.py", "ipvlan"]
    guest = [sys.executable, "-m", "cni_underlay.lab.guest", "run", "--timeout", "120", "--", *command]
    done = subprocess.run(guest, cwd=CHECKOUT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ipvlan" in done.stdout
    assert done.stdout.count("4 6 h") >= 8
    assert "-" not in done.stdout
