#!/usr/bin/env python3
"""Writes Grafana's JSON for the dashboards that deploy/observability/dashboards/*.toml describe.

  scripts/dashboards.py           writes charts/dfs-operator/files/dashboards/*.json (part of `make generate`)
  scripts/dashboards.py --check   says which differ, and ends with 1 (part of scripts/test-rules.sh)
  scripts/dashboards.py --rules   their expressions as a rules file, for promtool to read

A dashboard has title, uid, description and rows of panels. A panel has title, description, a unit and either `expr` and
`legend` or several `query`s; `type` is `timeseries` unless said. `alerts` become links to their runbooks. In expressions
stands `$C` for the store that was chosen, `$READ` and `$WRITE` for requests of users at its gateways.
"""
import json
import pathlib
import sys
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCE = ROOT / "deploy/observability/dashboards"
TARGET = ROOT / "charts/dfs-operator/files/dashboards"
# The chart puts its value `rules.runbooks` in the place of this.
RUNBOOKS = "docs/runbooks"
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS = 24
MACROS = {
    "$C": 'namespace="$namespace",cluster="$cluster"',
    "$READ": 'component="gateway",method=~"GET|HEAD",route=~"/files.*|/download/.*"',
    "$WRITE": 'component="gateway",method=~"PUT|POST|DELETE",route=~"/files.*|/upload"',
}
PANEL_KEYS = {"title", "description", "type", "unit", "expr", "legend", "query", "thresholds", "alerts", "width", "height",
              "stack", "min", "max", "empty", "text", "decimals"}


def expanded(expr):
    for name, selector in MACROS.items():
        # `$C` only where it stands for labels: `$cluster` is Grafana's.
        expr = expr.replace("{" + name, "{" + selector).replace("," + name, "," + selector)
    return expr.strip()


def targets(panel):
    queries = panel.get("query") or [{"expr": panel["expr"], "legend": panel.get("legend", "")}]
    instant = panel.get("type") in ("stat", "table")
    made = []
    for index, query in enumerate(queries):
        target = {"refId": chr(ord("A") + index), "datasource": DATASOURCE, "expr": expanded(query["expr"]),
                  "legendFormat": query.get("legend", "") or "__auto"}
        if instant:
            target |= {"instant": True, "range": False}
        if panel.get("type") == "table":
            target["format"] = "table"
        made.append(target)
    return made


def thresholds(panel):
    steps = panel.get("thresholds", [["green"]])
    return {"mode": "absolute",
            "steps": [{"color": color, "value": rest[0] if rest else None} for color, *rest in steps]}


def options(kind):
    if kind == "stat":
        return {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, "colorMode": "background",
                "graphMode": "none", "textMode": "auto", "justifyMode": "auto", "orientation": "auto"}
    if kind == "table":
        return {"showHeader": True, "cellHeight": "sm"}
    return {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"}}


def field_defaults(panel, kind):
    defaults = {"unit": panel.get("unit", "short"), "thresholds": thresholds(panel)}
    for key in ("min", "max", "decimals"):
        if key in panel:
            defaults[key] = panel[key]
    if kind == "timeseries":
        defaults["color"] = {"mode": "palette-classic"}
        defaults["custom"] = {"lineWidth": 1, "fillOpacity": 20 if panel.get("stack") else 5, "showPoints": "never",
                              "stacking": {"mode": "normal" if panel.get("stack") else "none", "group": "A"},
                              "thresholdsStyle": {"mode": "line" if "thresholds" in panel else "off"}}
    else:
        defaults["color"] = {"mode": "thresholds"}
        if "empty" in panel:
            defaults["mappings"] = [{"type": "special",
                                     "options": {"match": "null+nan", "result": {"text": panel["empty"], "color": "text"}}}]
            defaults["noValue"] = panel["empty"]
    return defaults


def made_panel(panel, number, place):
    unknown = set(panel) - PANEL_KEYS
    if unknown:
        raise SystemExit(f"{panel.get('title')}: unknown keys {sorted(unknown)}")
    kind = panel.get("type", "timeseries")
    made = {"id": number, "type": kind, "title": panel["title"], "gridPos": place}
    if kind == "text":
        return made | {"options": {"mode": "markdown", "content": panel["text"].strip()}}
    made |= {"description": panel["description"], "datasource": DATASOURCE, "targets": targets(panel), "options": options(kind),
             "fieldConfig": {"defaults": field_defaults(panel, kind), "overrides": []}}
    if kind == "table":
        # Labels and the value; the rest is noise.
        made["transformations"] = [{"id": "organize", "options": {"excludeByName": {"Time": True, "__name__": True, "job": True}}}]
    links = [{"title": f"Runbook: {alert}", "url": f"{RUNBOOKS}/{alert}.md", "targetBlank": True} for alert in panel.get("alerts", [])]
    if links:
        made["links"] = links
    return made


def panels(rows):
    made, top = [], 0
    for row in rows:
        made.append({"id": len(made) + 1, "type": "row", "title": row["title"], "collapsed": False, "panels": [],
                     "gridPos": {"x": 0, "y": top, "w": COLUMNS, "h": 1}})
        top, left, tallest = top + 1, 0, 0
        for panel in row["panel"]:
            is_stat = panel.get("type") == "stat"
            width, height = panel.get("width", 4 if is_stat else 8), panel.get("height", 4 if is_stat else 8)
            if left + width > COLUMNS:
                top, left, tallest = top + tallest, 0, 0
            made.append(made_panel(panel, len(made) + 1, {"x": left, "y": top, "w": width, "h": height}))
            left, tallest = left + width, max(tallest, height)
        top += tallest
    return made


def variable(name, label, query):
    return {"name": name, "label": label, "type": "query", "datasource": DATASOURCE, "query": {"query": query, "refId": name},
            "definition": query, "refresh": 2, "sort": 1, "multi": False, "includeAll": False}


def annotation(name, color, expr, title):
    return {"name": name, "datasource": DATASOURCE, "enable": True, "iconColor": color, "expr": expanded(expr), "step": "60s",
            "titleFormat": title, "textFormat": "", "useValueForTime": False}


def dashboard(source):
    return {
        "uid": source["uid"], "title": source["title"], "description": source["description"], "tags": ["dfs"],
        "schemaVersion": 39, "version": 1, "editable": True, "graphTooltip": 1, "refresh": "30s", "timezone": "browser",
        "time": {"from": "now-3h", "to": "now"},
        "links": [
            {"type": "dashboards", "title": "dfs", "tags": ["dfs"], "asDropdown": True, "includeVars": True, "keepTime": True},
            {"type": "link", "title": "Runbooks", "url": f"{RUNBOOKS}/README.md", "targetBlank": True, "icon": "doc"},
        ],
        "templating": {"list": [
            {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "refresh": 1},
            variable("namespace", "Namespace", "label_values(dfs_build_info{role=\"tracker\"}, namespace)"),
            variable("cluster", "Cluster", "label_values(dfs_build_info{role=\"tracker\",namespace=\"$namespace\"}, cluster)"),
        ]},
        "annotations": {"list": [
            annotation("New pods (rolls, drains)", "blue", "dfs_build_info{$C} unless dfs_build_info{$C} offset 1m",
                       "{{pod}} is new ({{version}})"),
            annotation("Datanodes lost", "red", 'increase(dfs_tracker_events_total{$C,kind=~"datanode-dead|partition-noticed"}[1m]) > 0',
                       "{{kind}}"),
            annotation("Datanodes back", "green", 'increase(dfs_tracker_events_total{$C,kind="datanode-returned"}[1m]) > 0', "{{kind}}"),
        ]},
        "panels": panels(source["row"]),
    }


def as_rules(sources):
    """Every expression with Grafana's variables filled in. promtool needs a name and refuses equal rules."""
    exprs = []
    for source in sources:
        made = dashboard(source)
        exprs += [target["expr"] for panel in made["panels"] for target in panel.get("targets", [])]
        exprs += [annotation["expr"] for annotation in made["annotations"]["list"]]
    filled = {expr.replace("$__rate_interval", "2m").replace("$namespace", "shop").replace("$cluster", "files"): None for expr in exprs}
    rules = [{"record": f"dashboard:{number}", "expr": expr} for number, expr in enumerate(filled)]
    return json.dumps({"groups": [{"name": "dashboards", "rules": rules}]}, indent=1)


def main():
    if "--rules" in sys.argv[1:]:
        print(as_rules(tomllib.loads(path.read_text()) for path in sorted(SOURCE.glob("*.toml"))))
        return 0
    differ = False
    for path in sorted(SOURCE.glob("*.toml")):
        text = json.dumps(dashboard(tomllib.loads(path.read_text())), indent=1) + "\n"
        target = TARGET / f"{path.stem}.json"
        if "--check" not in sys.argv[1:]:
            target.write_text(text)
        elif not target.exists() or target.read_text() != text:
            print(f"{target.relative_to(ROOT)} is not what {path.relative_to(ROOT)} says: run `make generate`", file=sys.stderr)
            differ = True
    return int(differ)


if __name__ == "__main__":
    sys.exit(main())
