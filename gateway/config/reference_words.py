"""The texts around the settings on their page, in each language (see `config.reference`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import yaml


class ReferenceTexts(NamedTuple):
    """The texts of a page in Markdown.

    `types` translates the names of types; `groups` and `keys` replace the schema's texts, by the
    names that the page shows. A text without an entry is used unchanged.
    """

    introduction: str
    top_level: str
    columns: str
    required: str
    by_environment: str
    within: str
    list_of: str
    mapping_to: str
    alternative: str
    types: Mapping[str, str] = {}
    groups: Mapping[str, str] = {}
    keys: Mapping[str, str] = {}


_EN: Final = ReferenceTexts(
    introduction="""\
# Settings

Made from the schema by `make docs`; do not edit.

The gateway reads a YAML file (the one that `--config` names, else the one in the variable
`DHP_GATEWAY_CONFIG`, else `/etc/dhp-gateway/gateway.yaml`, else `./gateway.yaml`; it says which it
took) and lays environment variables over it, key by key. An unknown key or variable is an error;
`dhp-gateway check` prints every problem at once, a secret or certificate file that cannot be read,
quotes or blanks around a secret and words of the examples included, opens no connection, and ends
with 2 when there is a problem. Warnings, which change no exit code, say of what works all the same
that it is unsafe or hardly meant so: former addresses, keys and passwords that travel unencrypted,
secrets in the settings file itself, operations that look like a misspelled one of FHIR.

* Durations are seconds. Sizes are bytes: integers, or texts with `B`, `kB`, `MB`, `GB`, `KiB`,
  `MiB` or `GiB`, such as `16MiB`.
* A variable's text is taken as it is for texts; numbers and `true`/`false` are parsed; lists and
  groups are JSON. For keys that may be null, `null` or nothing means null.
* Any secret `x` may be given as `x_file`: the path of a file, of which a final line break is
  ignored. An environment variable for either replaces both of the file.
* `<NAME>` in a variable's name stands for a credential's name in capitals.
* Relative paths start where the gateway is started.

What `environment` fills in. `dhp-playground` and `dhp-production` are the platform of today's
guide, `playground` and `production` the former addresses, of guide 0.1.0, of which `check`,
`doctor` and the start warn. Each has clients of its own: an SSO answers `invalid_client` to those
of another environment. `custom`, the default, fills in nothing: no secret goes to an address that
was not chosen.

| environment | `platform.fhir_base_url` | `sso.token_url` | `sso.authorize_url` |
| --- | --- | --- | --- |
""",
    top_level="Top level",
    columns="key | variable | type | default | meaning",
    required="required",
    by_environment="by `environment`",
    within="in {}",
    list_of="list of {}",
    mapping_to="mapping of name to {}",
    alternative="{} or {}",
)

_RU: Final = ReferenceTexts(
    introduction="""\
# Настройки

Создано из схемы командой `make docs`; не правьте.

Шлюз читает файл YAML (тот, который указан в `--config`, иначе в переменной `DHP_GATEWAY_CONFIG`,
иначе `/etc/dhp-gateway/gateway.yaml`, иначе `./gateway.yaml`; он сообщает, какой взял) и поверх
него, ключ за ключом, применяет переменные окружения. Неизвестный ключ или переменная — ошибка;
`dhp-gateway check` выводит сразу все ошибки, в том числе нечитаемый файл секрета или сертификата,
кавычки или пробелы вокруг секрета и слова из примеров, не открывает соединений и при ошибке
завершается с кодом 2. Предупреждения кода не меняют: они говорят о том, что работает, но
небезопасно или вряд ли задумано, — прежние адреса, ключи и пароли без шифрования, секреты прямо в
файле настроек, операции, похожие на опечатку в имени операции FHIR.

* Длительности — в секундах. Размеры — в байтах: целые числа или тексты с `B`, `kB`, `MB`, `GB`,
  `KiB`, `MiB` или `GiB`, например `16MiB`.
* Если настройка — текст, он берётся из переменной как есть; числа и `true`/`false` разбираются;
  списки и группы пишутся в JSON. Если ключ может быть null, `null` или пустое значение означает
  null.
* Любой секрет `x` можно задать как `x_file`: путь к файлу, в котором последний перевод строки не
  учитывается. Переменная окружения для любого из двух заменяет оба из файла.
* `<NAME>` в имени переменной — имя учётных данных заглавными буквами.
* Относительные пути отсчитываются от папки, в которой запущен шлюз.

Что подставляет `environment`. `dhp-playground` и `dhp-production` — платформа из нынешнего
руководства, `playground` и `production` — прежние адреса из руководства 0.1.0, о которых
предупреждают `check`, `doctor` и запуск. У каждой среды свои клиенты: клиентам другой среды сервис
входа отвечает `invalid_client`. `custom` (так по умолчанию) не подставляет ничего: секрет не уходит
по адресу, который никто не выбирал.

| среда | `platform.fhir_base_url` | `sso.token_url` | `sso.authorize_url` |
| --- | --- | --- | --- |
""",
    top_level="Верхний уровень",
    columns="ключ | переменная | тип | по умолчанию | описание",
    required="обязательно",
    by_environment="из `environment`",
    within="в {}",
    list_of="список: {}",
    mapping_to="имя → {}",
    alternative="{} или {}",
    types={
        "true or false": "true или false",
        "whole number": "целое число",
        "number": "число",
        "text": "текст",
        "group": "группа",
        "seconds": "секунды",
        "bytes": "байты",
        "address": "адрес",
        "network": "сеть",
        "path": "путь",
        "secret": "секрет",
    },
    **yaml.safe_load((Path(__file__).parent / "settings.ru.yaml").read_text(encoding="utf-8")),
)

WORDS: Final = {"en": _EN, "ru": _RU}
