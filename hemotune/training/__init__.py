"""The network and its optimizer, how it is trained and resumed, and what is recorded."""
