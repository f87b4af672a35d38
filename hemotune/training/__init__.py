"""The network, its optimizer, its fit, and how a fit is resumed."""
