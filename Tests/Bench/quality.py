"""What quantization costs models, and what training on them then reaches. Run by `make quality`.

    quality.py [decoders|embeddings|training]...     these parts alone; all without one
"""

import sys

import transformers

import quality_decoders
import quality_embeddings
import quality_training

PARTS = {"decoders": quality_decoders.main, "embeddings": quality_embeddings.main, "training": quality_training.main}


def main() -> None:
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    for name in sys.argv[1:] or PARTS:
        PARTS[name]()


if __name__ == "__main__":
    main()
