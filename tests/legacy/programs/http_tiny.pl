# HTTP::Tiny, which comes with Perl: keeps the connection; the proxy is $http_proxy.
use FindBin;
require "$FindBin::Bin/serve.pl";

# <sample>
use HTTP::Tiny;

my $http = HTTP::Tiny->new;

sub call {
    my ($method, $url, $body, $etag) = @_;
    my %fields = (Accept => 'application/fhir+json');
    $fields{'If-Match'} = $etag if defined $etag;
    $fields{'Content-Type'} = 'application/fhir+json' if defined $body;
    my $answer = $http->request($method, $url, {headers => \%fields, content => $body // ''});
    return ($answer->{status}, @{$answer->{headers}}{'etag', 'location'}, $answer->{content});
}

sub search {
    my ($name) = @_;
    return call('GET', "$ENV{BASE}/Patient?" . $http->www_form_urlencode({name => $name}));
}
# </sample>
serve(\&call, \&search);
