"""The text of a LightGBM model, read strictly before LightGBM itself gets to see it.

LightGBM trusts what it loads: a child or a feature that does not exist is an address outside its memory. So a text is
taken only if it is word for word what LightGBM writes for trees that exist: every line known, every list as long as it
has to be, every index in range, every child after its parent and everybody's once.
"""

import re

import numpy as np

MOST_LEAVES = 1024
"""Of one tree: what walks a tree calls itself once per level."""

_END = "end of trees\n"
_NODES = ("split_feature", "split_gain", "threshold", "decision_type", "left_child", "right_child")
_LEAVES = ("leaf_value", "leaf_weight", "leaf_count")
_INTERNAL = ("internal_value", "internal_weight", "internal_count")
_CATEGORIES = ("cat_boundaries", "cat_threshold")
_NUMBER = re.compile(r"-?\d{1,20}(\.\d{1,40})?(e[+-]\d{1,3})?")
_THRESHOLD = re.compile(rf"{_NUMBER.pattern}|inf")  # inf: what is measured goes left, what is missing right
_WHOLE = re.compile(r"-?\d{1,10}")


def header(n_columns: int) -> str:
    """The lines before the first tree of a binary classifier of `n_columns`."""
    names, infos = (" ".join(words) for words in ((f"Column_{i}" for i in range(n_columns)), ["none"] * n_columns))
    return (
        "tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nlabel_index=0\n"
        f"max_feature_idx={n_columns - 1}\nobjective=binary sigmoid:1\nfeature_names={names}\nfeature_infos={infos}\n\n"
    )


def trees_of(text: str, n_columns: int) -> str:
    """Of the text that LightGBM has written the trees alone, below `header`: all that a prediction depends on."""
    return header(n_columns) + text[text.index("Tree=0\n") : text.index(_END)] + _END


def leaf_values(text: str, n_columns: int) -> list[np.ndarray]:
    """The leaf values of each tree in `text`; ValueError, in one sentence, where it is not what `trees_of` gave."""
    start = header(n_columns)
    if not text.startswith(start):
        raise ValueError(f"not the text of LightGBM trees that read {n_columns} columns")
    if not text.endswith(f"\n\n\n{_END}"):
        raise ValueError("the text of the LightGBM trees does not end as it should")
    blocks = text[len(start) : -len(_END) - 3].split("\n\n\n")
    return [_leaf_values(number, block.split("\n"), n_columns) for number, block in enumerate(blocks)]


def _leaf_values(number: int, lines: list[str], n_columns: int) -> np.ndarray:
    def expect(true: bool, what: str) -> None:
        if not true:
            raise ValueError(f"tree {number} of the LightGBM text: {what}")

    pairs = [line.partition("=")[::2] for line in lines]
    found = dict(pairs)
    expect(len(found) == len(pairs) and found.get("Tree") == str(number), "its number, or a line twice")

    def whole(key: str, length: int = 1) -> np.ndarray:
        words = found.get(key, "").split(" ") if found.get(key) else []
        expect(len(words) == length and all(map(_WHOLE.fullmatch, words)), f"{key}: expected {length} whole numbers")
        return np.array(words, np.int64)

    def numbers(key: str, length: int = 1, pattern: re.Pattern = _NUMBER) -> np.ndarray:
        words = found.get(key, "").split(" ") if found.get(key) else []
        expect(len(words) == length and all(map(pattern.fullmatch, words)), f"{key}: expected {length} numbers")
        return np.array(words, np.float64)

    leaves, n_cat = int(whole("num_leaves")[0]), int(whole("num_cat")[0])
    expect(1 <= leaves <= MOST_LEAVES and 0 <= n_cat < leaves, "its size")
    lists = _NODES + _LEAVES + _INTERNAL + (_CATEGORIES if n_cat else ())
    expect(
        [key for key, _ in pairs] == ["Tree", "num_leaves", "num_cat", *lists, "is_linear", "shrinkage"], "its lines"
    )
    expect(found["is_linear"] == "0", "is_linear")
    nodes = leaves - 1
    feature, kind, left, right = (whole(key, nodes) for key in ("split_feature", *_NODES[3:]))
    expect(bool(((feature >= 0) & (feature < n_columns)).all()), "split_feature: no such column")
    # Bits: a category; missing goes left; and two for what is missing: nothing, zeros or NaN.
    expect(bool(((kind >= 0) & (kind < 12)).all()), "decision_type")
    children = np.stack([left, right])
    expect(sorted(children.flatten()) == [*range(-leaves, 0), *range(1, nodes)] if nodes else True, "its children")
    expect(bool(((children < 0) | (children > np.arange(nodes))).all()), "a child before its parent")
    for key in ("leaf_count", "internal_count"):
        counts = whole(key, leaves if key == "leaf_count" else nodes)
        expect(bool(((counts >= 0) & (counts < 2**31)).all()), key)
    for key in ("split_gain", "internal_value", "internal_weight"):
        numbers(key, nodes)
    numbers("leaf_weight", leaves if nodes else 0)
    numbers("shrinkage")
    threshold = numbers("threshold", nodes, _THRESHOLD)
    if n_cat:
        bounds = whole("cat_boundaries", n_cat + 1)
        expect(bounds[0] == 0 and bool((np.diff(bounds) > 0).all()) and bounds[-1] < 2**20, "cat_boundaries")
        words = whole("cat_threshold", int(bounds[-1]))
        expect(bool(((words >= 0) & (words < 2**32)).all()), "cat_threshold")
    where = threshold[kind % 2 == 1]
    expect(bool(((where >= 0) & (where < n_cat) & (where == np.floor(where))).all()), "threshold: no such category")
    return numbers("leaf_value", leaves)
