"""The report in a real browser: nothing fails, the slider moves, sorting sorts, on a phone too."""

import os
import shutil

import numpy as np
import pytest
from conftest import SAMPLES

from cvsa_jax.evaluation import report


@pytest.fixture(scope="module")
def job(run_restore, tiny_checkpoint, tmp_path_factory):
    """Three images and their report."""
    output = tmp_path_factory.mktemp("job")
    done = run_restore(
        f"--checkpoint={tiny_checkpoint}", "--task=denoise", f"--input={SAMPLES}", "--limit=3", "--image_size=16",
        "--num_steps=4", "--num_samples=1", "--report", f"--output={output}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"report: {output / 'report.html'}" in done.stdout
    return output


def test_page_needs_nothing_else(job):
    text = (job / "report.html").read_text()
    assert text.count("data:image/png;base64,") == 6
    assert "http" not in text
    assert "<dt>guidance</dt><dd>covariance</dd>" in text


def test_names_are_escaped(job, tmp_path):
    picture = next((job / "restored").glob("*.png"))
    row = report.Row("<b>&", picture, picture, ("a", "b"), {"PSNR": 1.0, "why": "<i>"})
    text = report.page("<t>", "<s>", "", [row], {"<k>": "<v>"})
    for raw in ("<b>&", "<t>", "<s>", "<k>", "<v>", "<i>"):
        assert raw not in text


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Headless Chromium through its driver."""
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip("needs chromium and chromedriver")
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium (pip install cvsa_jax[browser])")
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    quiet = ("--headless=new", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync",
             f"--user-data-dir={tmp_path_factory.mktemp('browser')}")  # fmt: skip
    for argument in (*quiet, *(["--no-sandbox"] if os.getuid() == 0 else [])):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    yield driver
    driver.quit()


def column(driver, number: int) -> list[float]:
    script = "return [...document.querySelectorAll('#images tbody tr')].map(r => r.cells[arguments[0]].dataset.value)"
    return [float(v) for v in driver.execute_script(script, number)]


def test_report_works_in_a_browser(browser, job):
    browser.set_window_size(1200, 900)
    browser.get((job / "report.html").as_uri())
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    shown = browser.execute_script("return [...document.images].every(i => i.complete && i.naturalWidth == 16)")
    assert shown
    # The slider: the restoration is cut where the thumb is.
    slider = browser.find_element("css selector", ".pair input")
    clip = "return getComputedStyle(document.querySelector('.pair .after')).clipPath"
    before = browser.execute_script(clip)
    slider.send_keys("\ue014" * 10)  # arrow right
    after = browser.execute_script(clip)
    assert before != after
    assert "60%" in after
    # Sorting by PSNR, up and down.
    heads = browser.find_elements("css selector", "#images th")
    number = next(i for i, h in enumerate(heads) if h.text.strip() == "PSNR")
    for order in (1, -1):
        heads[number].find_element("css selector", "button").click()
        values = column(browser, number)
        assert len(set(values)) == 3
        np.testing.assert_array_equal(values, sorted(values)[::order])
    assert heads[number].get_attribute("aria-sort") == "descending"


def test_report_fits_a_phone(browser, job):
    browser.set_window_size(500, 900)  # the least that Chromium allows a window
    browser.get((job / "report.html").as_uri())
    wide, visible = browser.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
    assert wide <= visible
    height = browser.execute_script("return document.querySelector('.pair img').getBoundingClientRect().width")
    assert height > 0.8 * visible
