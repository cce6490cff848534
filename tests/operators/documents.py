"""The alert rules, the guides, the tests and the README agree; the dashboard is laid out."""

import json
import re
import sys

import yaml

from lib import DEPLOY, REPO
from lib.faults import FAULTS
from support.cases import Cases, equal

GUIDES = ("GUIDE.md", "GUIDE.ru.md")
# Defaults of the hub that the rules have as numbers.
NUMBERS = {"WEBSOCKET_MAX_CONNECTIONS": "100000", "ENGINE_MAX_DUELS": "200000",
           "ENGINE_MAX_REMEMBERED_TICKETS": "2000000"}


def is_laid_out(dashboard):
    """As Grafana wants it: ids of their own, no panel upon another, and no data source but the one that is chosen."""
    ids = [panel["id"] for panel in dashboard["panels"]]
    equal(len(set(ids)), len(ids), "ids")
    taken = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken and at["x"] + at["w"] <= 24, panel["title"]
        taken |= cells
        for asks in [panel, *panel.get("targets", [])] if panel["type"] != "row" else []:
            equal(asks["datasource"], {"type": "prometheus", "uid": "${datasource}"}, panel["title"])
    equal([variable["name"] for variable in dashboard["templating"]["list"]], ["datasource", "instance"], "variables")


def main():
    cases = Cases()
    rules = (DEPLOY / "prometheus" / "duelhub.rules.yml").read_text()
    alerts = {rule["alert"]: rule for group in yaml.safe_load(rules)["groups"] for rule in group["rules"] if "alert" in rule}
    for name, alert in alerts.items():
        with cases.case(f"{name} is whole"):
            assert alert["labels"]["severity"] in ("critical", "warning")
            equal(set(alert["annotations"]), {"summary", "runbook"}, "annotations")
            equal(alert["annotations"]["runbook"], f"deploy/GUIDE.md#{name.lower()}", "runbook")
    for guide in GUIDES:
        with cases.case(f"{guide} has a row for each alert, in the order of the rules"):
            rows = re.findall(r'^\| <a id="(\w+)"></a>`(\w+)` \| .+ \| .+ \|$', (DEPLOY / guide).read_text(), re.MULTILINE)
            equal(rows, [(name.lower(), name) for name in alerts], "rows")
    with cases.case("each alert has a fault that it must fire at"):
        # The free space is told by the node exporter, not by a hub.
        equal({alert for fault in FAULTS.values() for alert in fault.fires} | {"DuelhubDiskNearlyFull"}, set(alerts), "alerts")
    with cases.case("each alert fires in alerts.yaml"):
        equal(set(re.findall(r'alertname="(\w+)", severity', (REPO / "tests/operators/alerts.yaml").read_text())),
              set(alerts), "alerts")
    for variable, number in NUMBERS.items():
        with cases.case(f"{variable} has the default that the rules reckon with"):
            assert f"| `{variable}` | {number} |" in (REPO / "README.md").read_text()
            assert re.search(rf"\b{number}\b", re.sub("#.*", "", rules)), f"no rule has {number}"
    with cases.case("the dashboard is laid out"):
        is_laid_out(json.loads((DEPLOY / "grafana" / "duelhub.json").read_text()))
    print(f"{cases.passed} passed, {cases.failed} failed", flush=True)
    return 1 if cases.failed else 0


if __name__ == "__main__":
    sys.exit(main())
