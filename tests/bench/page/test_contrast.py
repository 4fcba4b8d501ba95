"""Contrast of the page's colours, by the formula of the Web Content Accessibility Guidelines."""

from __future__ import annotations

import re

import pytest

from fusetune.bench.page.assets import text_of

# Text above, colour below: where the style and the plots put them.
ON = {
    "paper": ("ink", "soft", "accent", "good", "bad"),
    "sheet": ("ink", "soft", "good", "bad"),
    "strong": ("ink", "soft", "accent", "good", "bad"),
    "warn-paper": ("warn-ink",),
}
READABLE, VISIBLE = 4.5, 3.0


def style_colors(theme: str) -> dict[str, str]:
    """Return the colours of the style's variables."""
    head = r":root \{" if theme == "light" else rf':root\[data-theme="{theme}"\] \{{'
    block = re.search(head + r"(.*?)\n\}", text_of("page.css"), re.DOTALL)[1]
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))


def plot_colors(theme: str) -> dict[str, list[str]]:
    """Return the colours of the plots' theme, each as a list."""
    block = re.search(rf"\n  {theme}: \{{(.*?)\n  \}},", text_of("page.js"), re.DOTALL)[1]
    found = re.findall(r'([\w]+): (\[[^\]]*\]|"#[0-9a-f]{6}")', block)
    return {name.lower(): re.findall(r"#[0-9a-f]{6}", value) for name, value in found}


def contrast(one: str, other: str) -> float:
    """Return the ratio of two colours' luminances, from 1 to 21."""

    def luminance(color: str) -> float:
        shares = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
        return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def between(colors: list[str], place: float) -> str:
    """Return the colour of a ramp at a place from 0 to 1."""
    at = place * (len(colors) - 1)
    left = min(int(at), len(colors) - 2)
    shares = [
        round(
            (1 - at + left) * int(colors[left][k : k + 2], 16)
            + (at - left) * int(colors[left + 1][k : k + 2], 16)
        )
        for k in (1, 3, 5)
    ]
    return "#" + "".join(f"{share:02x}" for share in shares)


def test_the_formula_gives_known_ratios() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_text_stands_out_from_what_is_below_it(theme: str) -> None:
    colors = style_colors(theme)
    ratios = {
        (text, below): contrast(colors[text], colors[below]) for below, texts in ON.items() for text in texts
    }
    assert not {pair: ratio for pair, ratio in ratios.items() if ratio < READABLE}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_plots_have_the_pages_colors_and_stand_out(theme: str) -> None:
    style, plots = style_colors(theme), plot_colors(theme)
    assert all([style[name]] == plots[name] for name in ("ink", "soft", "paper", "accent", "good", "bad"))
    paper = style["paper"]
    assert contrast(plots["target"][0], paper) >= READABLE
    shown = [*plots["category"], *plots["other"]]
    assert not {color: contrast(color, paper) for color in shown if contrast(color, paper) < VISIBLE}
    assert len(set(plots["category"])) == len(plots["category"]) >= 10


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_text_in_a_cell_stands_out_from_every_color_of_its_half_of_the_ramp(theme: str) -> None:
    plots = plot_colors(theme)
    for percent in range(101):
        text = plots["high" if percent > 50 else "low"][0]
        assert contrast(between(plots["ramp"], percent / 100), text) >= READABLE, percent
