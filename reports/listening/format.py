"""Names in the files of a listening test, shared by its export and by the import of its ratings.

test.json    public: screens, stimuli and groups by ids that say nothing
key.json     private: what each id is, and what was done to its sound
audio/       one WAV per stimulus
"""

FORMAT = 1  # of test.json and key.json
TEST, KEY, AUDIO = "test.json", "key.json", "audio"

# Kinds of tests, by what is on one screen.
NMOS, SMOS, AB, ABX, CMOS, MUSHRA = "nmos", "smos", "ab", "abx", "cmos", "mushra"
SINGLE = (NMOS, SMOS)
PAIRS = (AB, ABX, CMOS)  # one answer compares two stimuli
KINDS = (*SINGLE, *PAIRS, MUSHRA)
WITH_VOICE = (SMOS, ABX)  # they play a recording of the target speaker as reference

# What a stimulus is; the last three are not rated for their system.
CONVERTED, SOURCE, TARGET, REFERENCE = "converted", "source", "target", "reference"
TRAP_SOUND, LOW, HIGH = "trap", "anchor_low", "anchor_high"

# What a screen is for; answers to training screens do not count.
TRIAL, TRAP, GOLD, REPEAT, TRAINING = "trial", "trap", "gold", "repeat", "training"
