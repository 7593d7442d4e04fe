"""Tools and their calls as the model was trained on them: definitions, prompts, reading calls. Pure values."""
