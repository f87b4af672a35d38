"""Stage finetune: python -m tasks.finetune."""
