"""Prompts in their templates, and templates that do not work."""

import pytest

from csreft_core.base.text.chat_templates import resolve_template, written_prompts
from csreft_core.config import preset, read_value, value_text, with_overrides
from csreft_core.errors import ConfigError, SkillSetError, UnsupportedModelError
from tests.small_tokenisers import CHATML, LLAMA, byte_level, sentencepiece

pytestmark = pytest.mark.libraries

THINKS = CHATML.replace(
    "assistant\n' }}{% endif %}",
    "assistant\n' }}{% if enable_thinking is defined and not enable_thinking %}<think></think>"
    "{% endif %}{% endif %}",
)
NEEDS_SYSTEM = (
    "{% if messages[0].role != 'system' %}{{ raise_exception('System message required') }}"
    "{% endif %}" + CHATML
)
TAGGED = (
    "{% for m in messages %}{% generation %}{{ m.content | upper }}{% endgeneration %}{% endfor %}"
)


def text(template: str, chat_template: str | dict, prompt: str = "hi") -> str:
    tokenizer = byte_level()
    tokenizer.chat_template = chat_template
    return written_prompts([prompt], tokenizer, resolve_template(template, tokenizer))[0].text


@pytest.mark.parametrize("chat_template", [CHATML, LLAMA, THINKS, TAGGED], ids=str.__len__)
def test_a_chat_template_gives_what_transformers_gives(chat_template):
    tokenizer = sentencepiece()
    tokenizer.chat_template = chat_template
    for prompt in ("hi", ' two\nlines "quoted" é <b> '):
        expected = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
        )
        (found,) = written_prompts([prompt], tokenizer, "chat")
        assert found.text == expected
        if chat_template != TAGGED:
            assert found.text[found.start : found.end] == prompt.strip()


def test_settings_of_a_chat_template():
    assert "think" not in text("chat", THINKS)
    assert text("chat", THINKS) == text('chat {"enable_thinking": true}', THINKS)
    assert text('chat {"enable_thinking": false}', THINKS).endswith("assistant\n<think></think>")
    assert text('chat {"system": "Be brief."}', NEEDS_SYSTEM).startswith(
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nhi<|im_end|>"
    )


def test_several_chat_templates():
    named = {"rag": "R {{ messages[0].content }}", "tool_use": "T"}
    assert text('chat {"template": "rag"}', named) == "R hi"
    for asked in ("auto", "chat", 'chat {"template": "other"}'):
        with pytest.raises(SkillSetError, match=r"rag, tool_use.*\"template\": \"rag\""):
            text(asked, named)
    assert text("auto", {**named, "default": "D"}) == "D"


def test_a_head_that_the_template_does_not_give_when_asked():
    """Else the base would have to write it, and training would teach it to leave it out."""
    headless = CHATML.partition("{% if add_generation_prompt")[0]
    assert text("chat", headless) == text("chat", CHATML)
    assert text("chat", LLAMA).endswith("hi [/INST]")
    (found,) = written_prompts(["hi"], byte_level(LLAMA), "chat")
    assert found.separator == " "


@pytest.mark.parametrize(
    ("chat_template", "message"),
    [
        ("{{ messages | no_filter }}", "no_filter.*set data.template"),
        ("{% if %}", "TemplateSyntaxError"),
        ("{{ messages[1].content }}", "UndefinedError"),
        ("{{ messages[0].content + 1 }}", "TypeError"),
        (NEEDS_SYSTEM, r"System message required.*chat \{\"system\""),
    ],
)
def test_a_chat_template_that_does_not_work_is_refused(chat_template, message):
    with pytest.raises(UnsupportedModelError, match=message):
        text("chat", chat_template)


@pytest.mark.parametrize(
    ("template", "prompt", "separator"),
    [
        ("Q: {prompt}\nA:", "Q: hi\nA:", " "),
        ("Q: {prompt}\nA:{answer}", "Q: hi\nA:", ""),
        ("<|im_start|>{prompt}<|assistant|>{answer}", "<|im_start|>hi<|assistant|>", ""),
        ('"{prompt}" in French is "{answer}', '"hi" in French is "', ""),
        ("{prompt}\n", "hi\n", ""),
    ],
)
def test_an_answer_stands_behind_a_space_unless_the_template_says_where(
    template, prompt, separator
):
    (found,) = written_prompts(["hi"], byte_level(None), template)
    assert (found.text, found.separator) == (prompt, separator)
    assert found.text[found.start : found.end] == "hi"


def test_templates_as_one_types_them():
    def template(typed: str) -> str:
        return with_overrides(preset("paper"), [f"data.template={typed}"]).data.template

    assert template(r"Q: {prompt}\nA:\t") == "Q: {prompt}\nA:\t"
    assert template(r"{prompt} \\nu =") == r"{prompt} \nu ="
    assert template('"Q: {prompt}\\nA:"') == "Q: {prompt}\nA:"
    assert template('chat {"system": "a\\nb"}') == 'chat {"system": "a\\nb"}'
    assert template("chat {prompt}") == "chat {prompt}"  # no JSON, but a text
    for wrong in (
        "Q:",
        "{prompt}{answer}:",
        "{answer}",
        "chat x",
        'chat ["a"]',
        "{prompt} {prompt}",
    ):
        with pytest.raises(ConfigError, match=r"data.template.*chat \{\"enable_thinking\""):
            template(wrong)
    with pytest.raises(ConfigError, match="expected a text as 'system'"):
        template('chat {"system": 1}')
    for value in ("Q: {prompt}\nA:", r"{prompt} \nu", "auto", 'chat {"system": "a\\nb"}', "3"):
        assert read_value("data.template", value_text("data.template", value)) == value
    assert value_text("base.path", r"C:\new") == r"C:\new"
    assert read_value("base.path", r"C:\new") == r"C:\new"
    assert read_value("base.path", '"\\ud800"') == '"\\ud800"'  # half a character
