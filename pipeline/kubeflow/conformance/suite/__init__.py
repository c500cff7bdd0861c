"""The packages of the suite: each shows one part of the language, and knows what it must give."""
