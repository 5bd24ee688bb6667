"""The specification's statements: which of them the suite has to prove, and why it cannot prove the others.

M must, S should, R robustness. The numbering is that of the project's list of statements.
"""

MUST = "M"
SHOULD = "S"
ROBUST = "R"
UNMARKED = ""

STATEMENTS: dict[str, str] = {
    **dict.fromkeys(("E-1", "E-2", "E-4", "E-5", "E-6", "E-8", "E-10", "E-11", "E-12", "E-13", "E-14", "E-16"), MUST),
    **dict.fromkeys(("E-3", "E-15"), SHOULD),
    **dict.fromkeys(("E-7", "E-9", "E-17", "E-18", "E-19", "E-20"), ROBUST),
    **dict.fromkeys(("J-1", "J-2", "J-3", "J-5", "J-6", "J-7", "J-9", "J-10", "J-11", "J-12", "J-13"), MUST),
    **dict.fromkeys(("J-8", "J-14"), SHOULD),
    "J-4": ROBUST,
    **dict.fromkeys(("O-1", "O-2", "O-3", "O-5", "O-6", "O-7"), MUST),
    "O-4": SHOULD,
    "O-8": ROBUST,
    **dict.fromkeys(("V-1", "V-2", "V-3", "V-4"), MUST),
    "V-5": SHOULD,
    **dict.fromkeys(("R-1", "R-2", "R-3", "R-4", "R-5", "R-6", "R-7", "R-8", "R-10"), MUST),
    "R-9": ROBUST,
    **dict.fromkeys(("A-1", "A-4", "A-5", "A-6", "A-7", "A-8", "A-10", "A-11", "A-12", "A-14", "A-15", "A-16"), MUST),
    **dict.fromkeys(("A-17", "A-19"), MUST),
    **dict.fromkeys(("A-2", "A-13"), SHOULD),
    **dict.fromkeys(("A-3", "A-9", "A-18", "A-20"), ROBUST),
    **dict.fromkeys(("D-1", "D-2", "D-3", "D-5", "D-6", "D-8", "D-9", "D-10", "D-13", "D-14"), MUST),
    "D-4": SHOULD,
    **dict.fromkeys(("D-7", "D-11", "D-12"), ROBUST),
    **dict.fromkeys(("C-1", "C-2", "C-3", "C-4", "C-5", "C-6", "C-7", "C-9", "C-10"), MUST),
    **dict.fromkeys(("C-8", "C-11"), SHOULD),
    **dict.fromkeys(("G-1", "G-2", "G-3", "G-4", "G-5", "G-6", "G-8", "G-9", "G-11"), MUST),
    **dict.fromkeys(("G-7", "G-10"), SHOULD),
    **dict.fromkeys(("S-1", "S-2", "S-4", "S-5", "S-6"), MUST),
    "S-3": SHOULD,
    "S-7": ROBUST,
    **dict.fromkeys(("P-1", "P-2", "P-3", "P-7", "P-9"), MUST),
    **dict.fromkeys(("P-4", "P-5", "P-8", "P-10"), SHOULD),
    "P-6": ROBUST,
    **dict.fromkeys(("H-1", "H-2", "H-3", "H-4"), MUST),
    **dict.fromkeys(("K-1", "K-2", "K-3", "K-4"), MUST),
    **dict.fromkeys(("L-1", "L-2", "L-3", "L-4", "L-5"), UNMARKED),
    **dict.fromkeys(("B-1", "B-2", "B-3", "B-4", "B-5", "B-6", "B-7", "B-8"), UNMARKED),
    **dict.fromkeys(("T-1", "T-2", "T-3", "T-4", "T-5"), MUST),
    "T-6": ROBUST,
    **dict.fromkeys(("N-1", "N-4", "N-5", "N-6"), MUST),
    **dict.fromkeys(("N-2", "N-3"), UNMARKED),
    "N-7": ROBUST,
}

NOT_THE_PLUGINS: dict[str, str] = {
    **dict.fromkeys(
        ("L-1", "L-2", "L-3", "L-4"),
        "who loads configuration lists reads these keys; a plugin never sees them",
    ),
    "L-5": "what a loader does to a plugin's configuration; the chains of this suite are driven that way",
    **dict.fromkeys(
        ("B-1", "B-2", "B-3", "B-4", "B-5", "B-6", "B-7", "B-8"),
        "how libcni calls; the suite's callers do the same, and the plugin's side is stated elsewhere",
    ),
}
