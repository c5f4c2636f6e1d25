<?php
// file_get_contents of PHP: one connection a request.
require __DIR__ . '/serve.php';

// <sample>
function call($method, $url, $body = null, $etag = null)
{
    $options = [
        'method' => $method,
        'header' => ['Accept: application/fhir+json', 'Content-Type: application/fhir+json'],
        'ignore_errors' => true, // without it the OperationOutcome of an error is lost
    ];
    if ($body !== null) {
        $options['content'] = $body;
    }
    if ($etag !== null) {
        $options['header'][] = "If-Match: $etag";
    }
    if ($proxy = getenv('http_proxy')) {
        $options += ['proxy' => str_replace('http:', 'tcp:', $proxy), 'request_fulluri' => true];
    }
    $text = file_get_contents($url, false, stream_context_create(['http' => $options]));
    $fields = [];
    foreach ($http_response_header as $line) {
        [$name, $value] = explode(': ', $line, 2) + [1 => ''];
        $fields[strtolower($name)] = $value;
    }
    return [(int) explode(' ', $http_response_header[0])[1], $fields, $text];
}

function search($name)
{
    return call('GET', getenv('BASE') . '/Patient?' . http_build_query(['name' => $name]));
}
// </sample>
serve();
