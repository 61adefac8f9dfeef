import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from cbmf.evaluate.charts import (
    SERIES,
    confusion_chart,
    histogram_chart,
    line_chart,
    panel_charts,
    plane_chart,
)
from cbmf.evaluate.figures import Drawing, Line

EVIL = '</svg><script>alert(1)</script><img src=x onerror="alert(2)"> $x_{$ & --> "q"'


def every_chart():
    random = np.random.default_rng(0)
    lines = [Line(EVIL, "model", [1.0, 2.0], [0.5, 1.5], [1.5, 2.5]), Line("c", "chance", [0, 1])]
    points = random.normal(size=(20, 2))
    drawing = Drawing("Figure", "k", "share", [1, 1000], {"a → b": lines}, logarithmic=True)
    return [
        line_chart(EVIL, lines, [1, 2], names=(EVIL, EVIL), level=(EVIL, 1.5), mark=1.0),
        histogram_chart(EVIL, {EVIL: random.normal(size=50)}, (-1.0, 1.0), EVIL),
        plane_chart(EVIL, {EVIL: points}, [(points[0], points[1])]),
        confusion_chart(EVIL, [EVIL, "cat"], np.array([[3, 1], [0, 5]])),
        *panel_charts(drawing),
    ]


@pytest.fixture(scope="module")
def charts():
    return every_chart()


def test_a_chart_is_one_element_and_its_texts_stay_texts(charts):
    for chart in charts:
        tree = ET.fromstring(chart.svg)  # a text that breaks out would not be well-formed
        assert tree.tag == "svg"
        kinds = {element.tag for element in tree.iter()}
        assert not kinds & {"script", "img", "style", "metadata", "foreignObject"}
        assert not any(name.startswith("on") for e in tree.iter() for name in e.attrib)


def test_a_chart_takes_the_colours_of_the_page_and_nothing_from_elsewhere(charts):
    for chart in charts:
        assert not any(colour in chart.svg for colour in SERIES)
        assert "var(--series-1)" in chart.svg and "currentColor" in chart.svg
        assert not re.search(r"#0[0-9a-f]0", chart.svg)
        references = re.findall(r'(?:href|src)="([^"]*)"|url\(([^)]*)\)', chart.svg)
        assert all((one or two).startswith("#") for one, two in references)
        assert "://" not in chart.svg


def test_the_same_data_make_the_same_chart(charts):
    assert [chart.svg for chart in every_chart()] == [chart.svg for chart in charts]


def test_a_chart_has_a_name_for_those_who_cannot_see_it(charts):
    tree = ET.fromstring(charts[0].svg)
    assert tree.attrib["role"] == "img" and tree.attrib["aria-label"] == EVIL


def test_numbers_of_a_logarithmic_axis_are_plain(charts):
    texts = ["".join(t.itertext()) for t in ET.fromstring(charts[-1].svg).iter("text")]
    assert "1,000" in texts and not any("mathdefault" in text for text in texts)


def test_a_confusion_has_its_shares_in_the_cells(charts):
    texts = ["".join(t.itertext()) for t in ET.fromstring(charts[3].svg).iter("text")]
    assert {"75", "25", "100"} <= set(texts)
    assert any(text.startswith("</svg><script>") for text in texts)  # as text, cut short
