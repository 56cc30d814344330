"""What peergate costs in a month: the benchmark's measured processor time, and prices of AWS. Prints the table of docs/deploy.md.

Uncertain numbers are taken at their upper end: each approval is a cold start, and has three channels.
"""

import re
from pathlib import Path

BENCHMARKS = (Path(__file__).parent.parent / "BENCHMARKS.md").read_text()

# List prices of us-east-1 in dollars, without the free tier.
# Sources: <https://aws.amazon.com/lambda/pricing/>, <https://aws.amazon.com/dynamodb/pricing/on-demand/>,
# <https://aws.amazon.com/secrets-manager/pricing/>, <https://aws.amazon.com/cloudwatch/pricing/>
GB_SECOND, REQUEST = 0.0000133334, 0.20 / 1e6
WRITE_UNIT, READ_UNIT = 0.625 / 1e6, 0.125 / 1e6
SECRET, SECRET_FETCH = 0.40, 0.05 / 1e4
LOG_GB, METRIC, ALARM_METRIC, DASHBOARD = 0.50, 0.30, 0.10, 3.00

# A function of 128 MB has this share of a processor.
SHARE = 128 / 1769
# Waits in ms: for AWS's services nearby, for Alibaba Cloud on another continent, for the handshakes of a cold start.
NEARBY, FAR, HANDSHAKES = 5, 150, 450
TICKS = 30 * 24 * 60
# Custom metrics that exist at some time; alarms, counted by the metrics that they watch.
METRICS, ALARMS = 27, 12


def measured(row, column):
    """A median of the tables in BENCHMARKS.md."""
    for table in re.findall(r"(?:^\|.*\n)+", BENCHMARKS, re.M):
        head, _, *rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines())
        for cells in rows:
            if cells[0] == row and column in head:
                return float(re.match(r"[\d.]+", cells[head.index(column)])[0])
    raise KeyError((row, column))


def seconds(cpu_ms, waits_ms):
    return (cpu_ms / SHARE + waits_ms) / 1000


def month(approvals):
    """Dollars for each kind of cost."""
    cold = seconds(measured("peergate webhook", "CPU together ms"), HANDSHAKES + 3 * NEARBY + 3 * FAR)
    finishing = seconds(measured("peergate watcher", "CPU ms"), measured("peergate watcher", "tick ms"))
    idle = seconds(measured("peergate watcher", "warm CPU ms"), NEARBY + FAR)
    # Two ticks by the stream for each approval: its card, and its end.
    gigabytes = 0.125 * (approvals * (cold + 2 * finishing) + TICKS * idle)
    # At most 30 writes of a record of 6 kB, with its entry in the index; a page of the index for each tick.
    table = approvals * (30 * 7 * WRITE_UNIT + 30 * 2 * READ_UNIT) + TICKS * READ_UNIT
    # The watcher fetches the secrets every five minutes, each cold webhook once.
    secrets = SECRET + (TICKS / 5 + approvals) * SECRET_FETCH
    logs = (approvals * 20e3 + TICKS * 1.5e3) / 1e9 * LOG_GB
    return {
        "Lambda": gigabytes * GB_SECOND + (3 * approvals + TICKS) * REQUEST,
        "DynamoDB": table,
        "Secrets Manager": secrets,
        "logs": logs,
        "metrics, alarms, dashboard": METRICS * METRIC + ALARMS * ALARM_METRIC + DASHBOARD,
    }


def table(volumes=(10, 1000, 100_000)):
    months = [month(volume) for volume in volumes]
    lines = ["| dollars a month | " + " | ".join(f"{volume:,} approvals" for volume in volumes) + " |", "|---|--:|--:|--:|"]
    for name in months[0]:
        lines.append(f"| {name} | " + " | ".join(f"{one[name]:.2f}" for one in months) + " |")
    lines.append("| all of it | " + " | ".join(f"{sum(one.values()):.2f}" for one in months) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
