"""Small tokenizers, shaped as those that the families of models ship."""

import functools
import io
import json
import pathlib
import random
import unicodedata

import sentencepiece
import tokenizers
import transformers
from tokenizers import decoders, models, trainers

from tool import ROOT

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
END = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CL100K = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + END
QWEN2 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + END
UPPER, LOWER, LEAD = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]", r"[^\r\n\p{L}\p{N}]?"
TEKKEN = (
    f"{LEAD}{UPPER}*{LOWER}+|{LEAD}{UPPER}+{LOWER}*" + r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
O200K = (
    f"{LEAD}{UPPER}*{LOWER}+{CONTRACTIONS}?|{LEAD}{UPPER}+{LOWER}*{CONTRACTIONS}?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

DIGITS = {"type": "Digits", "individual_digits": True}
CHAT = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"


def byte_level(expression):
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": expression}


def split(pattern, behavior="Isolated", invert=False):
    return {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": invert},
            byte_level(False),
        ],
    }


# Family: model_type, pre-tokenizer, other members of tokenizer.json and its model, special and ordinary added tokens,
# tokenizer_config.json.
BYTE_LEVEL = {
    "gpt2": ("gpt2", byte_level(True), {}, ["<|endoftext|>"], [], {"bos_token": 0, "eos_token": 0}),
    "qwen2": (
        "qwen2", split(QWEN2), {"normalizer": {"type": "NFC"}}, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        ["<tool_call>", "</tool_call>"], {"eos_token": 2, "pad_token": 0, "add_bos_token": False, "chat_template": CHAT},
    ),
    "qwen3-moe": (
        "qwen3_moe", split(QWEN2), {"normalizer": {"type": "NFC"}}, ["<|endoftext|>", "<|im_start|>"], ["<think>"],
        {"eos_token": 1},
    ),
    "llama3": (
        "llama", split(CL100K), {"ignore_merges": True, "bos": True},
        ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"], [], {"bos_token": 0, "eos_token": 2},
    ),
    "smollm3": (
        "smollm3", split(CL100K), {}, ["<|begin_of_text|>", "<|end_of_text|>"], ["<think>"],
        {"bos_token": 0, "eos_token": 1, "clean_up_tokenization_spaces": True},
    ),
    "olmo2": (
        "olmo2", split(CL100K), {}, ["<|endoftext|>", "<|pad|>"], ["|||PHONE|||"], {"bos_token": 0, "pad_token": 1},
    ),
    "phi4": (
        "phi3", split(CL100K, "Removed", True), {}, ["<|endoftext|>", "<|dummy_1|>"], [],
        {"bos_token": 0, "eos_token": 0, "tokenizer_class": "GPT2Tokenizer"},
    ),
    "phi4-mini": (
        "phi3", split(O200K), {}, ["<|endoftext|>"], [], {"eos_token": 0, "tokenizer_class": "GPT2Tokenizer"},
    ),
    "tekken": (
        "mistral", split(TEKKEN), {"ignore_merges": True, "bos": True}, ["<unk>", "<s>", "</s>", "[INST]"], [],
        {"bos_token": 1, "eos_token": 2, "unk_token": 0},
    ),
    "starcoder2": (
        "starcoder2", {"type": "Sequence", "pretokenizers": [DIGITS, byte_level(True)]}, {},
        ["<|endoftext|>", "<fim_prefix>", "<fim_middle>"], [], {"bos_token": 0, "eos_token": 0, "unk_token": 0},
    ),
    "granite": (
        "granite", {"type": "Sequence", "pretokenizers": [DIGITS, byte_level(True)]}, {},
        ["<|end_of_text|>", "<fim_prefix>"], [], {"bos_token": 0, "eos_token": 0, "pad_token": 0},
    ),
}

# The name that llama.cpp's converter has for each, known by its hash of what the real one makes of a sample text.
PRE = {
    "gpt2": "gpt-2", "qwen2": "qwen2", "qwen3-moe": "qwen2", "llama3": "llama-bpe", "smollm3": "smaug-bpe",
    "olmo2": "dbrx", "phi4": "dbrx", "phi4-mini": "gpt-4o", "tekken": "tekken", "starcoder2": "starcoder",
    "granite": "refact",
}

# Those that compose characters.
COMPOSES = {family for family, row in BYTE_LEVEL.items() if row[2].get("normalizer") == {"type": "NFC"}}

# Family: model_type, special tokens after the first three, ordinary ones, whether a text begins with a space.
SENTENCE_PIECE = {
    "llama2": ("llama", [], [], True),
    "codellama": ("llama", ["▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>"], [], True),
    "mixtral": ("mixtral", ["[INST]", "[/INST]"], [], True),
    "phi3": ("phi3", ["<|endoftext|>", "<|user|>", "<|end|>"], ["<sep>"], True),
    "gemma": ("gemma", ["<start_of_turn>"], ["<unused0>", "[@BOS@]"], False),
    "gemma2": ("gemma2", ["<start_of_turn>", "<end_of_turn>"], ["<unused0>", "\n\n", "<table>"], False),
    "gemma3": ("gemma3_text", ["<end_of_turn>"], ["<unused0>", "<table>"], False),
}


def corpus() -> list[str]:
    """Lines of English, code and digits, none of which is ever edited, with letters of many scripts."""
    lines = (ROOT / "LICENSE").read_text().splitlines()
    lines += (ROOT / "fixtures" / "sql-llama" / "questions.py").read_text().splitlines()
    lines += ["größer naïve café", "нещо на Български", "កាន់តែពិសេស", "我想在apple工作1314151天", "🦙🦙 ✅ 🚀", "e\u0301 ﬁ"]
    return [line + "\n" for line in lines]


def texts(count: int, extra: list[str]) -> list[str]:
    """Strings to compare on: pieces of the corpus, digits, spaces, scripts, and names of added tokens, mixed."""
    chooser = random.Random(4)
    words = " ".join(corpus()).split(" ")
    pieces = words + extra + [
        " ", "  ", "   ", "\n", "\n\n", "\t", " \n ", "\r\n", "'s", "'LL", "I'VE", "3", "33", "333", "3333", "3.14", "…",
        "!!", "?!", "--", "=====", "a_b", "camelCaseWord", "HTTPServer", "中文", "日本語", "한국어", "עברית", "नमस्ते", "ไทย",
        "é", "e\u0301", "ñ", "ß", "Ǆ", "½", "Ⅷ", "𝔘", "👩‍👩‍👧", "\u00a0", "\u200b", "\u3000", "▁", "Ġ", "<", ">", "|", "\\",
    ]
    made = ["", " ", "\n", "a", " a", "a ", "Hello world", "  leading", "trailing  "]
    while len(made) < count:
        glue = chooser.choice(["", " "])
        made.append(glue.join(chooser.choice(pieces) for _ in range(chooser.randrange(1, 12))))
    return made


def wild(count: int, extra: list[str]) -> list[str]:
    """Strings that no one writes: control characters, marks without a letter, characters of every plane."""
    chooser = random.Random(5)
    ranges = [
        (0x01, 0x20), (0x20, 0x7F), (0x7F, 0x100), (0x100, 0x250), (0x300, 0x370), (0x370, 0x530), (0x590, 0x700),
        (0x900, 0xE80), (0x2000, 0x2070), (0x2070, 0x2C00), (0x3000, 0x3100), (0x4E00, 0x9FFF), (0xAC00, 0xD7A4),
        (0xE000, 0xE010), (0xFE00, 0xFE10), (0xFF00, 0xFFF0), (0x1F300, 0x1F650), (0x20000, 0x2A6D0),
        (0xE0100, 0xE0110),
    ]

    def piece() -> str:
        if chooser.random() < 0.1:
            return chooser.choice(extra + [" ", "\n", "\t\t", "  \n"])
        first, last = chooser.choice(ranges)
        characters = [chr(chooser.randrange(first, last)) for _ in range(chooser.randrange(1, 5))]
        # What no version of Unicode has assigned is nothing to agree on.
        return "".join(one for one in characters if unicodedata.category(one) != "Cn")

    return ["".join(piece() for _ in range(chooser.randrange(1, 9))) for _ in range(count)]


def save(directory: pathlib.Path, model_type: str, vocab_size: int, files: dict, **config):
    """A model of the family with weights as small as can be, and the tokenizer's files."""
    sizes = {
        "vocab_size": vocab_size, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": None,
        "bos_token_id": None, "eos_token_id": None, **config,
    }
    if model_type in ("qwen3_moe", "qwen2_moe", "mixtral"):
        sizes |= {"num_experts": 2, "num_local_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 32}
    if model_type == "gpt2":
        sizes["n_ctx"] = 64
    config = transformers.AutoConfig.for_model(model_type, **sizes)
    model = transformers.AutoModelForCausalLM.from_config(config)
    model.save_pretrained(directory)
    for name, content in files.items():
        (directory / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def added(number: int, content: str, special: bool, strips: bool = False):
    return {
        "id": number, "content": content, "single_word": False, "lstrip": False, "rstrip": strips,
        "normalized": False, "special": special,
    }


@functools.cache
def byte_level_files(family: str) -> tuple[list[str], int, dict]:
    """The added tokens, the number of all tokens, and the files."""
    _, pre, members, special, ordinary, config = BYTE_LEVEL[family]
    trained = tokenizers.Tokenizer(models.BPE())
    trained.pre_tokenizer = tokenizers.Tokenizer.from_str(
        json.dumps({"model": {"type": "BPE", "vocab": {}, "merges": []}, "pre_tokenizer": pre})
    ).pre_tokenizer
    trained.decoder = decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trained.train_from_iterator(
        corpus(), trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet, show_progress=False)
    )
    file = json.loads(trained.to_str())
    size = len(file["model"]["vocab"])
    contents = special + ordinary
    file["added_tokens"] = [added(size + n, content, n < len(special)) for n, content in enumerate(contents)]
    file["model"]["ignore_merges"] = members.get("ignore_merges", False)
    file["normalizer"] = members.get("normalizer")
    file["post_processor"] = byte_level(True)
    if members.get("bos"):
        token = contents[config["bos_token"]]
        entry, first = {"id": token, "ids": [size + config["bos_token"]], "tokens": [token]}, {
            "SpecialToken": {"id": token, "type_id": 0}
        }
        a, b = {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}
        template = {"type": "TemplateProcessing", "single": [first, a], "pair": [first, a, first, b]}
        file["post_processor"] = {
            "type": "Sequence", "processors": [byte_level(False), template | {"special_tokens": {token: entry}}],
        }
    config = {"tokenizer_class": "PreTrainedTokenizerFast"} | {
        key: contents[value] if isinstance(value, int) and key.endswith("_token") and not key.startswith("add_") else value
        for key, value in config.items()
    }
    files = {"tokenizer.json": file, "tokenizer_config.json": config}
    return contents, size + len(contents), {name: json.dumps(file, ensure_ascii=False) for name, file in files.items()}


def make_byte_level(directory: pathlib.Path, family: str) -> list[str]:
    """Writes the model; returns its added tokens."""
    contents, size, files = byte_level_files(family)
    # Rows that no token has, as models round their vocabulary up.
    save(directory, BYTE_LEVEL[family][0], size + 5, files)
    return contents


@functools.cache
def sentence_piece_files(family: str) -> tuple[list[str], int, dict]:
    """The added tokens, the number of all tokens, and the files."""
    _, special, ordinary, prefix = SENTENCE_PIECE[family]
    writer = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()), model_writer=writer, vocab_size=700, model_type="bpe",
        byte_fallback=True, normalization_rule_name="identity", add_dummy_prefix=prefix, remove_extra_whitespaces=False,
        character_coverage=1.0, split_digits=True, allow_whitespace_only_pieces=True, minloglevel=2,
    )
    model = writer.getvalue()
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    size = processor.vocab_size()
    pieces = {processor.id_to_piece(number): number for number in range(size)}
    contents = special + ordinary
    # Phi-3's take the spaces after them, but for the three that other models have too.
    strips = family == "phi3"
    base = [added(number, processor.id_to_piece(number), True, strips and number == 2) for number in range(3)]
    more = [
        added(size + n, content, n < len(special), strips and content != "<|endoftext|>")
        for n, content in enumerate(contents)
    ]
    space = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    normalizers = [{"type": "Prepend", "prepend": "▁"}, space] if prefix else [space]
    unspace = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []
    first = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    file = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": base + more,
        "normalizer": {"type": "Sequence", "normalizers": normalizers}, "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing", "single": [first, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [first, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": {"type": "Sequence", "decoders": [unspace, {"type": "ByteFallback"}, {"type": "Fuse"}] + strip},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
            "vocab": pieces, "merges": merges(processor, pieces),
        },
    }
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
        "add_bos_token": True, "add_eos_token": False,
        "added_tokens_decoder": {
            str(token["id"]): {key: value for key, value in token.items() if key != "id"} for token in base + more
        },
    }
    files = {name: json.dumps(file, ensure_ascii=False) for name, file in {
        "tokenizer.json": file, "tokenizer_config.json": config}.items()}
    return contents, size + len(contents), files | {"tokenizer.model": model}


def make_sentence_piece(directory: pathlib.Path, family: str, keeps_model: bool) -> list[str]:
    """Writes the model, with `tokenizer.model` or with tokenizer.json alone; returns its added tokens."""
    contents, size, files = sentence_piece_files(family)
    if not keeps_model:
        files = {name: content for name, content in files.items() if name != "tokenizer.model"}
    save(directory, SENTENCE_PIECE[family][0], size + 3, files)
    return contents


def files(family: str) -> dict:
    """The files of a tokenizer of either kind, by name."""
    return (byte_level_files if family in BYTE_LEVEL else sentence_piece_files)(family)[2]


def roles(family: str) -> dict[str, int | None]:
    """The numbers of the tokens that begin, end and pad a text, as config.json has them."""
    if family not in BYTE_LEVEL:
        return {"bos": 1, "eos": 2, "pad": 0}
    *_, special, ordinary, config = BYTE_LEVEL[family]
    first = byte_level_files(family)[1] - len(special + ordinary)
    numbers = {role: config.get(f"{role}_token") for role in ("bos", "eos", "pad")}
    return {role: None if number is None else first + number for role, number in numbers.items()}


def merges(processor, pieces) -> list[list[str]]:
    """The pairs whose result is a piece, the highest score first."""
    found = []
    for piece, number in pieces.items():
        if processor.is_control(number) or processor.is_unknown(number) or processor.is_byte(number):
            continue
        pairs = [(piece[:at], piece[at:]) for at in range(1, len(piece))]
        pairs = [pair for pair in pairs if pair[0] in pieces and pair[1] in pieces]
        pairs.sort(key=lambda pair: (pieces[pair[0]], pieces[pair[1]]))
        found += [(processor.get_score(number), pair) for pair in pairs]
    found.sort(key=lambda item: -item[0])
    return [list(pair) for _, pair in found]
