"""What GET /metrics says, as numbers by name and labels."""

from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import Service

Labels = frozenset[tuple[str, str]]


class Exposed:
    """One scrape."""

    def __init__(self, text: str) -> None:
        self.samples: dict[tuple[str, Labels], float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                key = sample.name, frozenset(sample.labels.items())
                assert key not in self.samples, f"{key} is there twice"
                self.samples[key] = sample.value

    def __call__(self, name: str, **labels: object) -> float:
        """The sum over all that have these ``labels``; 0 where there is none."""
        wanted = {(key, str(value)) for key, value in labels.items()}
        return sum(value for (found, has), value in self.samples.items() if found == name and wanted <= has)

    def by(self, label: str, name: str, **labels: object) -> Mapping[str, float]:
        """The values by ``label``."""
        wanted = {(key, str(value)) for key, value in labels.items()}
        return {dict(has)[label]: v for (found, has), v in self.samples.items() if found == name and wanted <= has}


def scrape(service: Service) -> Exposed:
    """What the service says now."""
    answer = service.client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    return Exposed(answer.text)
