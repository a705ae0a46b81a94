"""The page in a real browser. Skipped where there is none."""

import pytest

from ouro_rl.run_dir.report.page import write_report
from ouro_rl.run_dir.run_dir import RunDir
from tests.ouro_rl.run_dir.report.test_samples import record
from tests.references.browser import browser, driven, loaded

EVIL = '</script><script>document.title="evil"</script><img src=x onerror="document.title=1">'


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A run of three steps with two groups each: one deep and right, one shallow and wrong."""
    browser()
    run = RunDir(tmp_path_factory.mktemp("pages") / "run")
    for step in (1, 2, 3):
        run.append_metrics({"step": step, "depth/p1": 0.5, "depth/p4": 0.5, "reward/mean": 0.5})
        right = [record(7, sample, depths=[4, 4, 4], question=EVIL, answer="12") for sample in range(4)]
        wrong = [
            record(
                8, sample, depths=[1, 1, 1], question="2 + 2?", answer="4", statuses={"math": "wrong"}, reward=0.0,
                rewards={"math": 0.0}, advantage=0.25, tokens=[EVIL, "\n", "b"],
            )
            for sample in range(4)
        ]  # fmt: skip
        run.write_rollouts(step, [*right, *wrong])
    return write_report(run.path)


def test_the_page_shows_its_samples_without_a_complaint(page, tmp_path):
    dom, console = loaded(page, tmp_path)
    assert console == []
    assert "24 of 24 samples" in dom
    assert "<title>run · ouro-rl report</title>" in dom and "<img" not in dom


FILTERS = """
const form = document.querySelector("form"), seen = {};
function choose(name, value) {
  form.elements[name].value = value;
  form.dispatchEvent(new Event("input", { bubbles: true }));
  return document.getElementById("found").textContent + " " + document.querySelectorAll("#samples article").length;
}
seen.right = choose("verdict", "right");
seen.deep = choose("depth", "deep");
seen.none = choose("depth", "shallow");
choose("verdict", "");
seen.shallow = choose("step", "2");
seen.reward = choose("low", "0.5");
seen.address = location.hash;
choose("depth", ""); choose("low", ""); choose("step", ""); choose("order", "best");
seen.first = document.querySelector("#samples article .verdict").textContent;
document.getElementById("more").click();
seen.more = document.querySelectorAll("#samples article").length;
return seen;
"""


def test_filters_keep_what_they_say(page, tmp_path):
    seen, console = driven(page, tmp_path, FILTERS)
    assert console == []
    assert seen == {
        "right": "12 of 24 samples 12",
        "deep": "12 of 24 samples 12",
        "none": "0 of 24 samples 0",
        "shallow": "4 of 24 samples 4",
        "reward": "0 of 24 samples 0",
        "address": "#depth=shallow&step=2&low=0.5",
        "first": "right",
        "more": 24,
    }


def after(shares: str) -> str:
    return "The gate leaves after " + shares.replace("_", "\N{NO-BREAK SPACE}")


GROUP = """
const seen = {}, button = document.querySelector("#samples button[data-group]");
button.click();
seen.title = document.querySelector("#samples h3").textContent;
seen.focus = document.activeElement === document.querySelector("#samples h3");
seen.cards = document.querySelectorAll("#samples article").length;
seen.advantage = document.querySelector("#samples .facts-line").textContent.includes("advantage +0.25");
seen.question = document.querySelector("#samples .question").textContent;
const pre = document.querySelector("#samples pre.completion"), tip = document.getElementById("tip");
pre.focus();
const press = key => pre.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
press("ArrowRight"); press("ArrowRight");
seen.token = [...tip.children].map(part => part.textContent);
press("Escape");
seen.hidden = tip.hidden;
pre.querySelector(".t").dispatchEvent(new MouseEvent("mouseover", { bubbles: true }));
seen.evil = tip.textContent.includes("<script>");
[...document.querySelectorAll("#samples button")].find(one => one.textContent.startsWith("Next")).click();
document.querySelectorAll("#samples .t")[2].dispatchEvent(new MouseEvent("mouseover", { bubbles: true }));
seen.deep = tip.lastChild.textContent;
seen.next = document.querySelector("#samples .gold").textContent;
[...document.querySelectorAll("#samples button")].find(one => one.textContent.startsWith("Back")).click();
seen.back = document.getElementById("found").textContent;
return seen;
"""


def test_a_group_side_by_side_and_its_tokens_by_keyboard(page, tmp_path):
    seen, console = driven(page, tmp_path, GROUP)
    assert console == []
    assert seen == {
        "title": "Step 3: 4 samples of one prompt, mean reward 0",
        "focus": True,
        "cards": 4,
        "advantage": True,
        "question": "2 + 2?Gold answer: 4",
        "token": ['"\\n"', "1 loop", "log-prob −1.500", after("loop 1 12.5_% later 87.5_% ")],
        "deep": after("loop 1 30.0_% loop 2 30.0_% loop 3 20.0_% loop 4 100.0_% "),
        "hidden": True,
        "evil": True,
        "next": "Gold answer: 12",
        "back": "24 of 24 samples",
    }


REACHABLE = """
const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
const controls = [...document.querySelectorAll("#browser button, #browser select, #browser input, pre.completion")];
return { wide, unreachable: controls.filter(one => one.tabIndex < 0).length, controls: controls.length > 20 };
"""


@pytest.mark.parametrize("width", [390, 1200])
def test_phone_and_desktop_do_not_scroll_sideways_and_keys_reach_everything(page, tmp_path, width):
    seen, _ = driven(page, tmp_path, REACHABLE, width=width)
    assert seen == {"wide": 0, "unreachable": 0, "controls": True}


def test_only_the_scripts_of_the_page_may_run(page, tmp_path):
    foreign = page.with_name("foreign.html")
    text = page.read_text(encoding="utf-8")
    foreign.write_text(text.replace("</main>", '</main><script>document.title = "evil"</script>'), encoding="utf-8")
    dom, console = loaded(foreign, tmp_path)
    assert "<title>run · ouro-rl report</title>" in dom
    assert any("Content Security Policy" in line for line in console)
