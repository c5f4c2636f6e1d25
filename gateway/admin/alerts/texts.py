"""The texts of alert messages in three languages.

The sentences of alerts are the summaries of deploy/prometheus/rules/alerts.yml, by the same names;
tests/admin/alerts/test_texts.py compares them. Placeholders: `instance` is the gateway, `about` a
credential or certificate, `value` the value of the alert.
"""

from __future__ import annotations

from typing import Final

_EN: Final = {
    "DhpGatewayNotReady": "The gateway {instance} has not been ready for 2 minutes",
    "DhpGatewayReloadFailed": "New settings of {instance} were refused; the old ones stay in force",
    "DhpGatewayOverloaded": "The gateway {instance} turns requests away: too many at once",
    "DhpGatewaySsoRefusing": "The SSO refuses the client or the secret of {about}",
    "DhpGatewaySsoFailing": "The SSO gives no token for {about}: it is out of reach or fails",
    "DhpGatewaySsoThrottling": "The SSO says that {about} asks too often",
    "DhpGatewayPlatformDown": "The platform fails for {value} of the requests",
    "DhpGatewayConnectionsExhausted": "All connections to the platform are in use",
    "DhpGatewayAuditDropped": "Audit records are lost",
    "DhpGatewayAuditUnavailable": "Requests are refused because the audit cannot be written",
    "DhpGatewayOutboxAgeing": "Results have been waiting for {value} to reach the platform",
    "DhpGatewayOutboxUnclear": "{value} queued writes need a person: it is not known whether the "
    "platform has them",
    "DhpGatewayOutboxFailed": "The platform refused {value} queued writes",
    "DhpGatewayOutboxUnavailable": "The outbox cannot be reached: writes cannot be queued, and "
    "those that wait are not delivered",
    "DhpGatewayOutboxFull": "The outbox is full: writes are not taken any more",
    "DhpGatewayCertificateExpiring": "The certificate {about} expires in {value}",
    "DhpGatewayCertificateLastDays": "The certificate {about} ends within three days, or has ended",
    "title:begun": "DHP Gateway {instance}: something is wrong",
    "title:over": "DHP Gateway {instance}: over",
    "title:daily": "DHP Gateway {instance}: the daily line",
    "title:test": "DHP Gateway {instance}: test",
    "begun": "{at} {sentence}. {care}",
    "over": "{at} Over, after {lasted}: {sentence}.",
    "daily": "{question} {answer}. {care} Requests since the last such line: {requests}, "
    "errors among them: {errors}. Alerts that are not over: {open}.",
    "test": "This is a test message of the gateway {instance}: whoever reads it will be told when "
    "something is wrong. Nothing has to be done.",
}
_RU: Final = {
    "DhpGatewayNotReady": "Шлюз {instance} не готов к работе уже 2 минуты",
    "DhpGatewayReloadFailed": "Новые настройки {instance} отклонены, действуют старые",
    "DhpGatewayOverloaded": "Шлюз {instance} отклоняет запросы: их слишком много одновременно",
    "DhpGatewaySsoRefusing": "Сервис входа не принимает клиента или секрет {about}",
    "DhpGatewaySsoFailing": "Сервис входа не выдаёт токен для {about}: недоступен или работает со "
    "сбоями",
    "DhpGatewaySsoThrottling": "Сервис входа сообщает, что {about} обращается слишком часто",
    "DhpGatewayPlatformDown": "Платформа не справляется с {value} запросов",
    "DhpGatewayConnectionsExhausted": "Все соединения с платформой заняты",
    "DhpGatewayAuditDropped": "Записи аудита теряются",
    "DhpGatewayAuditUnavailable": "Запросы отклоняются: журнал аудита не записывается",
    "DhpGatewayOutboxAgeing": "Результаты ждут доставки на платформу уже {value}",
    "DhpGatewayOutboxUnclear": "Записи в очереди ждут решения человека ({value}): неизвестно, есть "
    "ли они на платформе",
    "DhpGatewayOutboxFailed": "Платформа отклонила записи из очереди ({value})",
    "DhpGatewayOutboxUnavailable": "Очередь отправки недоступна: новые записи в неё не попадают, а "
    "ожидающие не доставляются",
    "DhpGatewayOutboxFull": "Очередь отправки заполнена: новые записи не принимаются",
    "DhpGatewayCertificateExpiring": "Сертификат {about} истекает через {value}",
    "DhpGatewayCertificateLastDays": "Сертификат {about} истекает в ближайшие три дня или уже "
    "истёк",
    "title:begun": "DHP Gateway {instance}: неполадка",
    "title:over": "DHP Gateway {instance}: неполадка устранена",
    "title:daily": "DHP Gateway {instance}: сводка за день",
    "title:test": "DHP Gateway {instance}: проверка",
    "begun": "{at} {sentence}. {care}",
    "over": "{at} Устранено, длилось {lasted}: {sentence}.",
    "daily": "{question} {answer}. {care} Запросов с прошлой сводки: {requests}, из них с "
    "ошибкой: {errors}. Не устранено неполадок: {open}.",
    "test": "Это проверочное сообщение шлюза {instance}: кто его читает, узнает и о неполадках. "
    "Делать ничего не нужно.",
}
_UZ: Final = {
    "DhpGatewayNotReady": "{instance} shlyuzi 2 daqiqadan beri ishga tayyor emas",
    "DhpGatewayReloadFailed": "{instance} ning yangi sozlamalari rad etildi, eskilari amal "
    "qilmoqda",
    "DhpGatewayOverloaded": "{instance} shlyuzi so‘rovlarni rad etmoqda: ular bir vaqtning o‘zida "
    "juda ko‘p",
    "DhpGatewaySsoRefusing": "Kirish xizmati {about} mijozini yoki sirini qabul qilmayapti",
    "DhpGatewaySsoFailing": "Kirish xizmati {about} uchun token bermayapti: unga yetib bo‘lmayapti "
    "yoki unda nosozlik bor",
    "DhpGatewaySsoThrottling": "Kirish xizmati {about} juda tez-tez murojaat qilayotganini "
    "bildirmoqda",
    "DhpGatewayPlatformDown": "Platforma so‘rovlarning {value} qismini bajara olmayapti",
    "DhpGatewayConnectionsExhausted": "Platforma bilan barcha ulanishlar band",
    "DhpGatewayAuditDropped": "Audit yozuvlari yo‘qolmoqda",
    "DhpGatewayAuditUnavailable": "So‘rovlar rad etilmoqda: audit yozilmayapti",
    "DhpGatewayOutboxAgeing": "Natijalar platformaga yetkazilishini {value} dan beri kutmoqda",
    "DhpGatewayOutboxUnclear": "Navbatdagi {value} ta yozuv odam qarorini kutmoqda: ular "
    "platformada bor-yo‘qligi noma’lum",
    "DhpGatewayOutboxFailed": "Platforma navbatdagi {value} ta yozuvni rad etdi",
    "DhpGatewayOutboxUnavailable": "Jo‘natish navbatini ochib bo‘lmayapti: yangi yozuvlar navbatga "
    "olinmaydi, kutayotganlari yetkazilmaydi",
    "DhpGatewayOutboxFull": "Jo‘natish navbati to‘lgan: yangi yozuvlar qabul qilinmayapti",
    "DhpGatewayCertificateExpiring": "{about} sertifikatining muddati {value} dan keyin tugaydi",
    "DhpGatewayCertificateLastDays": "{about} sertifikatining muddati uch kun ichida tugaydi yoki "
    "tugagan",
    "title:begun": "DHP Gateway {instance}: nosozlik",
    "title:over": "DHP Gateway {instance}: nosozlik bartaraf etildi",
    "title:daily": "DHP Gateway {instance}: kunlik xabar",
    "title:test": "DHP Gateway {instance}: sinov",
    "begun": "{at} {sentence}. {care}",
    "over": "{at} Bartaraf etildi, {lasted} davom etdi: {sentence}.",
    "daily": "{question} {answer}. {care} Oldingi xabardan beri so‘rovlar: {requests}, "
    "shulardan xato bilan: {errors}. Bartaraf etilmagan nosozliklar: {open}.",
    "test": "Bu {instance} shlyuzining sinov xabari: uni o‘qigan kishiga nosozlik haqida ham xabar "
    "beriladi. Hech narsa qilish shart emas.",
}

ALERT_TEXTS: Final[dict[str, dict[str, str]]] = {"en": _EN, "ru": _RU, "uz": _UZ}
