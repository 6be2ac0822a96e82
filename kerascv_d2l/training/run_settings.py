"""Which settings of a run may differ when it is resumed, or between workers."""

# They do not change what is computed. (Other devices change it by rounding only, unless batch norm
# is per device. `images` says which data.)
FREE = {
    *("out", "resume", "devices", "data_dir", "archive", "skip_bad"),
    *("map_every", "save_every", "tile", "patience", "weights_content"),
}

# These may differ too, as long as the setting that says what they lead to is the same.
_LEADING_TO = {
    "images": {"data", "split_seed", "val_fraction"},
    "weights_content": {"weights"},
}
_SHOWN = 200  # characters of a value, at most


def differences(one, other, free=()):
    """List the settings that differ and may not.

    Args:
        one: dict of settings.
        other: dict of settings.
        free: names of settings that may differ, besides `FREE`.

    Returns:
        List of tuples of text: the name, and the value in each of them, `'nothing'` where there
        is none.
    """
    same = [name for name in _LEADING_TO if one.get(name) and one[name] == other.get(name)]
    free = FREE.union(free, *(_LEADING_TO[name] for name in same))
    pairs = {name: (one.get(name, "nothing"), other.get(name, "nothing")) for name in one | other}
    return [
        (name, _short(first), _short(second))
        for name, (first, second) in pairs.items()
        if name not in free and first != second
    ]


def _short(value):
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} …"
