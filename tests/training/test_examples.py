from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decaf_node.errors import BadData, BadSettings
from decaf_node.settings import Settings
from decaf_node.training.examples import (
    IGNORED,
    KEYS,
    BadRow,
    Example,
    answer_tokens,
    collate,
    columns_needed,
    make_encoder,
)
from tests.training.tiny import LABELS, causal_settings, classifier_settings, make_tokenizer

HERE = Path(".")


def encode(settings: Settings, rows: list[dict[str, Any]], **kind: bool) -> list[Example]:
    return make_encoder(settings, make_tokenizer(**kind))(rows)


def words(example: Example, **kind: bool) -> str:
    return str(make_tokenizer(**kind).decode(example.tokens))


def test_classes_are_numbered_as_in_the_settings() -> None:
    settings = classifier_settings(HERE, HERE)
    rows = [{"text": "the cat", "label": "tech"}, {"text": "a law", "label": "sport"}]
    examples = encode(settings, rows, frame=True)
    assert [example.label for example in examples] == [2, 0]
    assert words(examples[0], frame=True) == "[CLS] the cat [SEP]"


def test_rows_without_text_are_left_out() -> None:
    rows = [{"text": text, "label": "tech"} for text in ("", None, "  ", "cat")]
    assert len(encode(classifier_settings(HERE, HERE), rows)) == 1
    assert len(encode(causal_settings(HERE, HERE), [{"text": ""}, {"text": None}, {"text": "cat sat"}])) == 1


def test_labels_may_be_numbers() -> None:
    settings = classifier_settings(HERE, HERE, model={"labels": ["0", "1"]})
    assert encode(settings, [{"text": "cat", "label": 1}])[0].label == 1


def test_an_unknown_label_is_told_without_it() -> None:
    rows = [{"text": "cat", "label": "sport"}, {"text": "cat", "label": "weather"}]
    with pytest.raises(BadRow, match=r"sport, politics, tech") as caught:
        encode(classifier_settings(HERE, HERE), rows)
    assert (caught.value.reason, caught.value.index) == ("data.unknown-label", 1)
    assert "weather" not in caught.value.message, "it tells others, who may see it, nothing that is private"


def test_texts_end_and_are_cut() -> None:
    settings = causal_settings(HERE, HERE, data={"max_length": 4})
    short, long = encode(settings, [{"text": "the cat"}, {"text": "the cat sat on a mat"}])
    assert words(short) == "the cat <end>"
    assert words(long) == "the cat sat on"


@pytest.mark.parametrize(
    ("chat", "expected"), [(False, "what is this"), (True, "<user> what is this <end> <assistant>")]
)
def test_the_loss_of_a_prompt_is_masked(chat: bool, expected: str) -> None:
    settings = causal_settings(HERE, HERE, data={"prompt_column": "question"})
    (example,) = encode(settings, [{"question": "what is this", "text": "a cat"}], chat=chat)
    assert words(example, chat=chat) == f"{expected} a cat <end>"
    assert example.prompt == len(expected.split())
    labels = collate([example], pad=0, causal=True, keyed=False)["labels"][0].tolist()
    assert labels == [IGNORED] * example.prompt + example.tokens[example.prompt :].tolist()


@pytest.mark.parametrize("chat", [False, True])
def test_a_prompt_that_is_too_long_loses_its_middle_and_never_its_answer(chat: bool) -> None:
    tokenizer = make_tokenizer(chat=chat)
    head, tail = answer_tokens(tokenizer, "the cat sat on a mat road game team goal", "tech", limit=9)
    assert len(head) + len(tail) == 9
    assert tokenizer.decode(tail) == "tech <end>"
    kept = tokenizer.decode(head)
    assert kept == (
        "<user> the cat team goal <end> <assistant>"[: len(kept)] if chat else "the cat sat on game team goal"
    )


def test_an_answer_must_be_a_label_where_there_are_labels() -> None:
    settings = causal_settings(HERE, HERE, data={"prompt_column": "q"}, model={"labels": LABELS})
    assert encode(settings, [{"q": "what", "text": "politics"}])[0].label == 1
    with pytest.raises(BadRow) as caught:
        encode(settings, [{"q": "what", "text": "weather"}])
    assert (caught.value.reason, caught.value.index) == ("data.unknown-label", 0)
    assert "weather" not in caught.value.message


def test_chats_are_rendered_by_the_template() -> None:
    settings = causal_settings(HERE, HERE, data={"messages_column": "chat", "max_length": 16})
    chat = [{"role": "user", "content": "what is this"}, {"role": "assistant", "content": "a cat"}]
    (example,) = encode(settings, [{"chat": chat}], chat=True)
    assert words(example, chat=True) == "<user> what is this <end> <assistant> a cat <end>"
    assert example.prompt == 0


@pytest.mark.parametrize("bad", ["text", [{"role": "user"}], [["user", "hello"]], None])
def test_what_is_no_chat(bad: Any) -> None:
    settings = causal_settings(HERE, HERE, data={"messages_column": "chat"})
    with pytest.raises(BadData) as caught:
        encode(settings, [{"chat": bad}], chat=True)
    assert caught.value.reason == "data.not-messages"


def test_a_chat_without_a_template() -> None:
    settings = causal_settings(HERE, HERE, data={"messages_column": "chat"})
    with pytest.raises(BadData) as caught:
        encode(settings, [{"chat": [{"role": "user", "content": "what"}]}])
    assert caught.value.reason == "data.no-chat-template"


def test_two_ways_to_give_the_text() -> None:
    with pytest.raises(BadSettings) as caught:
        columns_needed(causal_settings(HERE, HERE, data={"messages_column": "a", "prompt_column": "b"}))
    assert caught.value.reason == "data.two-texts"


def test_the_columns_that_a_task_needs() -> None:
    named = {"text_column": "t", "label_column": "l"}
    assert columns_needed(classifier_settings(HERE, HERE, data=named)) == ["t", "l"]
    assert columns_needed(causal_settings(HERE, HERE, data=named)) == ["t"]
    assert columns_needed(causal_settings(HERE, HERE, data={**named, "prompt_column": "p"})) == ["p", "t"]
    assert columns_needed(causal_settings(HERE, HERE, data={"messages_column": "m"})) == ["m"]


def test_a_batch_is_padded_on_the_right_to_its_longest() -> None:
    rows = [{"text": "the cat sat", "label": "tech"}, {"text": "dog", "label": "sport"}]
    examples = encode(classifier_settings(HERE, HERE), rows)
    batch = collate(examples, pad=0, causal=False, keyed=True)
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["input_ids"][1, 1:].tolist() == [0, 0]
    assert batch["labels"].tolist() == [2, 0]
    assert batch[KEYS].tolist() == [example.key for example in examples]


def test_keys_and_contents_are_those_of_the_row() -> None:
    settings = classifier_settings(HERE, HERE)
    rows = [{"text": f"the {word}", "label": "tech"} for word in ("cat", "dog", "mat", "cat")]
    one, two = encode(settings, rows), encode(settings, rows)
    assert [example.key for example in one] == [example.key for example in two]
    assert len({example.key for example in one}) == 3
    assert one[0].content == one[3].content != one[1].content
    assert all(0 <= example.content < 1 for example in one)
    assert one[0].tokens.dtype == np.int32
