"""Copies crds/ into the chart as templates: installed and upgraded with it, kept or not by values. Helm reads no file outside of a chart.

`crds/` is the only source; a test fails when the copies differ from what this script writes.
"""

import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCE, CHART = ROOT / "crds", ROOT / "charts" / "postroom" / "templates"
METADATA = re.compile(r"^metadata: \{name: (?P<name>[a-z.]+)\}$", re.MULTILINE)
KEPT = """metadata:
  name: {name}
  labels: {{{{ include "postroom.labels" (list . "crds") | nindent 4 }}}}
  {{{{- if .Values.crds.keep }}}}
  annotations: {{helm.sh/resource-policy: keep}}
  {{{{- end }}}}"""


def template(source: str) -> str:
    """A CRD as a template. Raises ValueError when its metadata is not one line with the name alone."""
    literal = source.replace("{{", '{{ "{{" }}')
    found = METADATA.search(literal)
    if found is None:
        raise ValueError("a CRD needs the line `metadata: {name: …}`")
    body = literal[: found.start()] + KEPT.format(name=found["name"]) + literal[found.end() :]
    return f"{{{{- if .Values.crds.enabled }}}}\n{body.rstrip()}\n{{{{- end }}}}\n"


def templates() -> dict[str, str]:
    """File name in the chart → content."""
    return {f"crd-{path.name.removeprefix('mail.postroom.dev_')}": template(path.read_text()) for path in sorted(SOURCE.glob("*.yaml"))}


def main() -> None:
    for old in CHART.glob("crd-*.yaml"):
        old.unlink()
    for name, content in templates().items():
        (CHART / name).write_text(content)


if __name__ == "__main__":
    main()
