"""Build the demo tokenizer: byte-level BPE in which every caption word is one token.

    python -m lab.training.tokenizer          # writes demo/tokenizer/

Any other word falls back to byte pieces. The files are those of a CLIP tokenizer, so the host's
own tokenizer class reads them.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

from ..files import ROOT

START, END, WORD_END = "<|startoftext|>", "<|endoftext|>", "</w>"


def byte_alphabet() -> list[str]:
    """The printable character that stands for each of the 256 bytes (GPT-2's convention)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in plain]
    shown = {b: chr(b) for b in plain} | {b: chr(256 + i) for i, b in enumerate(others)}
    return [shown[b] for b in range(256)]


def merges_for(words: list[str]) -> list[tuple[str, str]]:
    """Merges, most frequent pair first, until every one of `words` is a single token."""
    spelled = {w: [*w[:-1], w[-1] + WORD_END] for w in words}
    merges = []
    while any(len(pieces) > 1 for pieces in spelled.values()):
        pairs = Counter(pair for p in spelled.values() for pair in pairwise(p))
        pair = min(pairs, key=lambda q: (-pairs[q], q))
        merges.append(pair)
        for word, pieces in spelled.items():
            merged, i = [], 0
            while i < len(pieces):
                if tuple(pieces[i : i + 2]) == pair:
                    merged.append(pieces[i] + pieces[i + 1])
                    i += 2
                else:
                    merged.append(pieces[i])
                    i += 1
            spelled[word] = merged
    return merges


def build(words: list[str], folder: Path) -> int:
    """Write the four files into `folder`; returns the size of the vocabulary."""
    parts = sorted({p for w in words for p in re.findall(r"[a-z]+", w.lower())})
    merges = merges_for(parts)
    alphabet = byte_alphabet()
    tokens = [START, END, *alphabet, *(c + WORD_END for c in alphabet)]
    tokens += [a + b for a, b in merges]
    vocab = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    folder.mkdir(parents=True, exist_ok=True)

    def write(name: str, text: str) -> None:
        (folder / name).write_text(text + "\n", encoding="utf-8")

    write("vocab.json", json.dumps(vocab, ensure_ascii=False, indent=0))
    write("merges.txt", "\n".join(["#version: 0.2", *(f"{a} {b}" for a, b in merges)]))
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    write("special_tokens_map.json", json.dumps(special, indent=1))
    config = {
        **special,
        "add_prefix_space": False,
        "do_lower_case": True,
        "errors": "replace",
        "model_max_length": 8192,
        "tokenizer_class": "CLIPTokenizer",
    }
    write("tokenizer_config.json", json.dumps(config, indent=1))
    return len(vocab)


def main() -> None:
    """Command line."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--out", default=str(ROOT / "demo" / "tokenizer"))
    args = p.parse_args()
    from ..scenes import vocabulary

    size = build(vocabulary(), Path(args.out))
    print(f"{size} tokens in {args.out}")


if __name__ == "__main__":
    main()
