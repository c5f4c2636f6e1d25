# LWP::UserAgent of Perl: one connection a request, unless it is told to keep some.
use FindBin;
require "$FindBin::Bin/serve.pl";

# <sample>
use HTTP::Request;
use LWP::UserAgent;
use URI::Escape;

my $agent = LWP::UserAgent->new(env_proxy => 1);    # keep_alive => 1 keeps connections

sub call {
    my ($method, $url, $body, $etag) = @_;
    my $request = HTTP::Request->new($method, $url, [Accept => 'application/fhir+json']);
    $request->header('If-Match' => $etag) if defined $etag;
    if (defined $body) {                            # bytes in UTF-8, as of Encode::encode_utf8
        $request->content_type('application/fhir+json');
        $request->content($body);
    }
    my $answer = $agent->request($request);
    # In a list a field that is not there would be left out.
    my ($found, $location) = map { scalar $answer->header($_) } qw(ETag Location);
    return ($answer->code, $found, $location, $answer->content);
}

sub search {
    my ($name) = @_;
    return call('GET', "$ENV{BASE}/Patient?name=" . uri_escape_utf8($name));
}
# </sample>
serve(\&call, \&search);
