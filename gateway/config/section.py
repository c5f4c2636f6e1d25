"""The base of every group of settings."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator


class Section(BaseModel):
    """A frozen group of settings that refuses keys it does not know."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        arbitrary_types_allowed=True,
        protected_namespaces=(),
    )

    @model_validator(mode="before")
    @classmethod
    def _empty_groups(cls, data: Any) -> Any:
        # In YAML, a group whose keys are all commented out is null.
        if not isinstance(data, dict):
            return data
        return {k: v for k, v in data.items() if v is not None or not cls._is_group(k)}

    @classmethod
    def _is_group(cls, key: object) -> bool:
        field = cls.model_fields.get(key) if isinstance(key, str) else None
        annotation = field.annotation if field else None
        return isinstance(annotation, type) and issubclass(annotation, Section)
