<?php
// What the programs in PHP share.
function serve(): void
{
    while (($line = fgets(STDIN)) !== false) {
        [$method, $url, $file, $etag] = array_map(fn($each) => $each === '-' ? null : $each, explode("\t", trim($line)));
        $body = $file === null ? null : file_get_contents($file);
        [$status, $fields, $text] = $method === 'SEARCH' ? search($url) : call($method, $url, $body, $etag);
        file_put_contents(getenv('OUT'), $text);
        echo implode("\t", [$status, $fields['etag'] ?? '', $fields['location'] ?? '']), "\n";
    }
}
