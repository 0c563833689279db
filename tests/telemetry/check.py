"""Checks deploy/ against a Prometheus that scrapes a server.

Every metric in the dashboard, in the alert rules and in docs/metrics.md is in the scrape; every metric of the scrape is documented;
Prometheus evaluates every expression of the dashboard, and of the alert rules.

    check.py PROMETHEUS_URL SCRAPE_FILE
"""

import json
import pathlib
import re
import sys
import urllib.error
import urllib.parse
import urllib.request

prometheus, scrape_file = sys.argv[1:3]
scrape = pathlib.Path(scrape_file).read_text()
# Metrics that are only there in some states of a server.
STATES = {"espalier_trace_spans_failed_total", "up"}

series = set(re.findall(r"^([a-z_]+)(?=[{ ])", scrape, re.MULTILINE))
families = {re.sub(r"_(bucket|sum|count)$", "", name) if f"# TYPE {re.sub(r'_(bucket|sum|count)$', '', name)} histogram" in scrape else name for name in series}


def names(expression):
    without_strings = re.sub(r'"[^"]*"', '""', expression)
    return set(re.findall(r"\b((?:espalier|process)_[a-z_]+|up)\b", without_strings))


def query(expression):
    url = f"{prometheus}/api/v1/query?" + urllib.parse.urlencode({"query": expression})
    try:
        with urllib.request.urlopen(url) as response:
            return json.load(response)["data"]["result"]
    except urllib.error.HTTPError as error:
        sys.exit(f"error: {expression}: {json.load(error)['error']}")


dashboard = json.loads(pathlib.Path("deploy/grafana/espalier.json").read_text())
panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
expressions = [(panel["title"], target["expr"]) for panel in panels for target in panel["targets"]]
with urllib.request.urlopen(f"{prometheus}/api/v1/rules") as response:
    groups = json.load(response)["data"]["groups"]
rules = [(rule["name"], rule["query"]) for group in groups for rule in group["rules"]]
failed_rules = [rule["name"] for group in groups for rule in group["rules"] if rule["health"] == "err"]
assert rules and not failed_rules, failed_rules

problems = []
for title, expression in expressions + rules:
    missing = names(expression) - series - STATES
    problems += [f"{title}: the scrape has no {name}" for name in sorted(missing)]
empty = []
for title, expression in expressions:
    filled = expression.replace("$__rate_interval", "1m").replace("$job", ".*").replace("$instance", ".*")
    found = query(filled)
    if not found and "status=~" not in expression:
        empty.append(f"{title}: {expression} has no value")
for variable in dashboard["templating"]["list"]:
    if variable["type"] == "datasource":
        continue
    match = re.fullmatch(r"label_values\((\w+)(\{.*\})?, (\w+)\)", variable["query"])
    assert match and query(f"count by ({match[3]}) ({match[1]})"), variable

documented = set()
for line in pathlib.Path("docs/metrics.md").read_text().splitlines():
    row = re.match(r"\| `((?:espalier|process)_[a-z_]+)(\{[a-z_,]+\})?` \|", line)
    if row:
        documented.add(row[1])
problems += [f"docs/metrics.md does not name {name}" for name in sorted(families - documented)]
problems += [f"docs/metrics.md names {name}, which is not in the scrape" for name in sorted(documented - families - STATES)]
problems += empty
if problems:
    sys.exit("error: " + "\nerror: ".join(problems))
print(f"{len(families)} metrics, all documented; {len(expressions)} expressions in {len(panels)} panels and {len(rules)} alert rules, all evaluated")
