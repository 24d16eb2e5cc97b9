"""What is used of huggingface_hub, which reads its environment while it is imported and ends where that is wrong."""

from pipeline.errors import UsageError

try:
    from huggingface_hub import EvalResult, HfApi, ModelCard, ModelCardData, constants, get_session, get_token
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
except ValueError as error:
    raise UsageError(
        f"The settings of this shell for the Hugging Face Hub cannot be used: {error}.",
        "Correct HF_ENDPOINT, or another variable that begins with HF_.",
    ) from error

__all__ = [
    "EvalResult", "HFValidationError", "HfApi", "HfHubHTTPError", "ModelCard", "ModelCardData", "OfflineModeIsEnabled",
    "constants", "get_session", "get_token",
]
