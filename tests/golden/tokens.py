"""The small Unigram vocabulary of the `unigram` family, trained on the text below (written for this project),
and the reference tokenizers.

Its tokenizer.json has the parts of a published T5 tokenizer except the normaliser: the table of nmt_nfkc
(230 kB) is tested with the published vocabulary.
"""

import io

import sentencepiece
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import ByT5Tokenizer

PIECES, SENTINELS = 156, 100

TEXT = """
The house on the hill has a green door and two small windows.
A green house stands beside the river, and the river runs past the mill.
She opened the window and looked at the hill behind the river.
He closed the door, put the key on the table and went to the station.
Where is the station? The station is behind the market, next to the old mill.
The train to the north leaves the station at seven in the morning.
Two trains leave in the evening: one to the north, one to the sea.
We waited for the train, but the train was late and the evening was cold.
It was a cold morning in winter; snow lay on the roof of the house.
In summer the children play beside the river until the evening.
The children found a small boat, and the boat had no owner.
Who owns the boat? Nobody in the village knows who owns the boat.
The miller says that the boat came down the river in the spring.
An old woman sells bread and apples in the market every morning.
Bread is good with butter, apples are good with cheese.
I would like two apples and a loaf of bread, please.
How much is the bread? The bread is three coins, the apples are one.
My brother reads a book about the sea; my sister writes a letter.
The letter is for our uncle, who lives in a town near the sea.
He reads the letter twice and puts it into the drawer of his table.
The teacher asked a question and nobody knew the answer.
The answer was in the book, on the last page, in small letters.
Please read the last page again and tell me what the question was.
Do not open the drawer, the key is under the book on the table.
A cat sleeps on the roof when the sun shines, and under the table when it rains.
The rain fell for seven days and the river rose to the door of the mill.
When the rain stopped, the miller counted the sacks that were still dry.
Nine sacks were dry, two were lost, and one had floated to the village.
The village thanked the miller and the miller thanked the village.
Good evening, said the woman, have you seen my cat on the roof?
""".strip()

# What a tokenizer meets: ordinary text, odd spacing, unknown characters, sentinels, nothing.
SAMPLES = [
    "The house on the hill",
    "  two   spaces  before and   after ",
    "Where is the green boat?",
    "The <extra_id_0> is behind <extra_id_1> mill.",
    "<extra_id_99><extra_id_0>",
    "naïve 東京 😀 café",
    "",
    "   ",
    "tab\tand\nnew line",
    "</s> inside, <pad> and <unk>",
    "Unknown words: xylophone, quartz",
]


def train(folder):
    """Writes spiece.model and tokenizer.json."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.splitlines()),
        model_writer=model,
        model_type="unigram",
        vocab_size=PIECES,
        normalization_rule_name="identity",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        hard_vocab_limit=True,
        num_threads=1,
        minloglevel=2,
    )
    (folder / "spiece.model").write_bytes(model.getvalue())
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    vocabulary = [(pieces.id_to_piece(i), pieces.get_score(i)) for i in range(pieces.get_piece_size())]
    sentinels = [f"<extra_id_{k}>" for k in reversed(range(SENTINELS))]
    tokenizer = Tokenizer(models.Unigram(vocabulary + [(text, 0.0) for text in sentinels], unk_id=2))
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>"] + sentinels)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace("▁", prepend_scheme="always", split=True)]
    )
    tokenizer.decoder = decoders.Metaspace("▁", prepend_scheme="always", split=True)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))


def unigram(folder):
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return (
        lambda text: tokenizer.encode(text).ids,
        lambda ids: tokenizer.decode(ids, skip_special_tokens=True),
    )


def byte_level(folder):
    tokenizer = ByT5Tokenizer()
    tokenizer.save_pretrained(folder)
    return (
        lambda text: tokenizer(text).input_ids,
        lambda ids: tokenizer.decode(ids, skip_special_tokens=True),
    )
