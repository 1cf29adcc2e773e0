"""What `vcbench corpus fetch` downloads: the archives of public corpora.

Licences, pages and voices of these corpora are in `bench.validity.corpora`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from bench.validity.corpora import PUBLIC_CORPORA, PublicCorpus


@dataclass(frozen=True)
class Archive:
    """A file to download.

    Attributes:
        url: its address.
        bytes: its size, rounded where the exact one is not published; None where unknown.
        sha256: its hash, or "" where none is published.
    """

    url: str
    bytes: int | None = None
    sha256: str = ""


@dataclass(frozen=True)
class CorpusDownload:
    """How to get a corpus. Its licence and its page are in `bench.validity.corpora`.

    Attributes:
        corpus: what is known of it.
        folder: the folder that its reader takes, inside the folder of all corpora.
        archives: part → file; empty where the corpus must be requested from its authors.
        unpack_inside: unpack the archives in `folder`, because they do not contain it.
    """

    corpus: PublicCorpus
    folder: str
    archives: Mapping[str, Archive] = field(default_factory=dict)
    unpack_inside: bool = False


# Hashes and sizes are those of torchaudio 2.11 and tensorflow-datasets, which agree. LibriSpeech's
# sizes are from its page.
_LIBRISPEECH = {
    "dev-clean": (337, "76f87d090650617fca0cac8f88b9416e0ebf80350acb97b343a85fa903728ab3"),
    "dev-other": (314, "12661c48e8c3fe1de2c1caa4c3e135193bfb1811584f11f569dd12645aa84365"),
    "test-clean": (346, "39fde525e59672dc6d1551919b1478f724438a95aa55f874b576be21967e6c23"),
    "test-other": (328, "d09c181bba5cf717b3dee7d4d592af11a3ee3a09e08ae025c5506f6ebe961c29"),
    "train-clean-100": (6300, "d4ddd1d5a6ab303066f14971d768ee43278a5f2a0aa43dc716b0e64ecbbbf6e2"),
    "train-clean-360": (23000, "146a56496217e96c14334a160df97fffedd6e0a04e66b9c5af0d40be3c792ecf"),
    "train-other-500": (30000, "ddb22f27f96ec163645d53215559df6aa36515f26e01dd70798188350adcb6d2"),
}
_LIBRITTS = {
    "dev-clean": (
        1291469655,
        "da0864e1bd26debed35da8a869dd5c04dfc27682921936de7cff9c8a254dbe1a",
    ),
    "dev-other": (
        924804676,
        "d413eda26f3a152ac7c9cf3658ef85504dfb1b625296e5fa83727f5186cca79c",
    ),
    "test-clean": (
        1230670113,
        "234ea5b25859102a87024a4b9b86641f5b5aaaf1197335c95090cde04fe9a4f5",
    ),
    "test-other": (
        964502297,
        "33a5342094f3bba7ccc2e0500b9e72d558f72eb99328ac8debe1d9080402f10d",
    ),
    "train-clean-100": (
        7723686890,
        "c5608bf1ef74bb621935382b8399c5cdd51cd3ee47cec51f00f885a64c6c7f6b",
    ),
    "train-clean-360": (
        27504073644,
        "ce7cff44dcac46009d18379f37ef36551123a1dc4e5c8e4eb73ae57260de4886",
    ),
    "train-other-500": (
        44565031479,
        "e35f7e34deeb2e2bdfe4403d88c8fdd5fbf64865cae41f027a185a6965f0a5df",
    ),
}
_OPENSLR = "https://www.openslr.org"
_VCTK = "https://datashare.ed.ac.uk/bitstream/handle/10283/3443/VCTK-Corpus-0.92.zip"

DOWNLOADS = {
    "librispeech": CorpusDownload(
        PUBLIC_CORPORA["librispeech"],
        "LibriSpeech",
        {
            part: Archive(f"{_OPENSLR}/resources/12/{part}.tar.gz", megabytes * 10**6, sha256)
            for part, (megabytes, sha256) in _LIBRISPEECH.items()
        },
    ),
    "libritts": CorpusDownload(
        PUBLIC_CORPORA["libritts"],
        "LibriTTS",
        {
            part: Archive(f"{_OPENSLR}/resources/60/{part}.tar.gz", size, sha256)
            for part, (size, sha256) in _LIBRITTS.items()
        },
    ),
    "libritts_r": CorpusDownload(
        PUBLIC_CORPORA["librittsr"],
        "LibriTTS_R",
        {
            part: Archive(f"{_OPENSLR}/resources/141/{part.replace('-', '_')}.tar.gz")
            for part in _LIBRITTS
        },
    ),
    "vctk": CorpusDownload(
        PUBLIC_CORPORA["vctk"],
        "VCTK-Corpus-0.92",
        {
            "all": Archive(
                _VCTK,
                11 * 10**9,
                "f96258be9fdc2cbff6559541aae7ea4f59df3fcaf5cf963aae5ca647357e359c",
            )
        },
        unpack_inside=True,
    ),
    "aishell3": CorpusDownload(
        PUBLIC_CORPORA["aishell3"],
        "AISHELL-3",
        {"all": Archive(f"{_OPENSLR}/resources/93/data_aishell3.tgz", 19 * 10**9)},
        unpack_inside=True,
    ),
    "vcc2020": CorpusDownload(
        PUBLIC_CORPORA["vcc2020"],
        "VCC2020",
        {
            part: Archive(
                f"{PUBLIC_CORPORA['vcc2020'].home}/raw/master/vcc2020_database_{part}.zip"
            )
            for part in (
                "training_source",
                "training_target_task1",
                "training_target_task2",
                "evaluation",
                "groundtruth",
                "transcriptions",
            )
        },
        unpack_inside=True,
    ),
    "esd": CorpusDownload(PUBLIC_CORPORA["esd"], "ESD"),
}
