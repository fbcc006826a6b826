from typing import Any

from jsonschema import ValidationError as ValidationError

def validate(data: dict[str, Any], desired_version: str, strict: bool = ...) -> str: ...
