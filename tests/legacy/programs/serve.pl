# What the programs in Perl share.
use strict;
use warnings;
use utf8;

sub serve {
    my ($call, $search) = @_;
    binmode STDIN, ':encoding(UTF-8)';
    $| = 1;
    while (my $line = <STDIN>) {
        my ($method, $url, $file, $etag) = map { $_ eq '-' ? undef : $_ } split ' ', $line;
        my $body;
        if (defined $file) {
            open my $in, '<:raw', $file or die $!;
            local $/;
            $body = <$in>;
        }
        my ($status, $found, $location, $text) =
            $method eq 'SEARCH' ? $search->($url) : $call->($method, $url, $body, $etag);
        open my $out, '>:raw', $ENV{OUT} or die $!;
        print $out $text;
        close $out;
        print join("\t", $status, $found // '', $location // ''), "\n";
    }
}
1;
