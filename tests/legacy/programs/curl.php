<?php
// The curl extension of PHP: the handle keeps the connection; the proxy is http_proxy.
require __DIR__ . '/serve.php';

// <sample>
$handle = curl_init();

function call($method, $url, $body = null, $etag = null)
{
    global $handle;
    $fields = [];
    curl_reset($handle); // of options only: the connection stays
    curl_setopt_array($handle, [
        CURLOPT_URL => $url,
        CURLOPT_CUSTOMREQUEST => $method,
        CURLOPT_RETURNTRANSFER => true,
        CURLOPT_HTTPHEADER => array_merge(
            ['Accept: application/fhir+json', 'Content-Type: application/fhir+json'],
            $etag === null ? [] : ["If-Match: $etag"],
        ),
        CURLOPT_HEADERFUNCTION => function ($handle, $line) use (&$fields) {
            [$name, $value] = explode(':', $line, 2) + [1 => ''];
            $fields[strtolower($name)] = trim($value);
            return strlen($line);
        },
    ]);
    if ($body !== null) {
        curl_setopt($handle, CURLOPT_POSTFIELDS, $body);
    }
    $text = curl_exec($handle);
    return [curl_getinfo($handle, CURLINFO_RESPONSE_CODE), $fields, $text];
}

function search($name)
{
    return call('GET', getenv('BASE') . '/Patient?' . http_build_query(['name' => $name]));
}
// </sample>
serve();
