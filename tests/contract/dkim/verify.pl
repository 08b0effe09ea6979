# Verifies the message on standard input with Mail::DKIM. The DNS records come as NAME=TEXT arguments.
# Prints one line per signature: algorithm and result.
use strict;
use warnings;
use Mail::DKIM::Verifier;
use Mail::DKIM::DNS;
use Net::DNS;

my %records = map { my ($name, $text) = split(/=/, $_, 2); ($name => $text) } @ARGV;

package Records;
sub new { return bless {}, shift }
sub send {
    my ($self, $name, $type) = @_;
    my $packet = Net::DNS::Packet->new($name, $type);
    $packet->push(answer => Net::DNS::RR->new(name => $name, type => 'TXT', ttl => 60, txtdata => [unpack('(A250)*', $records{$name})])) if $records{$name};
    return $packet;
}
sub query { my $self = shift; return $self->send(@_) }
sub bgsend { my $self = shift; return $self->send(@_) }
sub bgbusy { return 0 }
sub bgread { my ($self, $packet) = @_; return $packet }
sub errorstring { return 'NXDOMAIN' }
sub AUTOLOAD { return }

package main;
Mail::DKIM::DNS::resolver(Records->new);
binmode STDIN;
my $verifier = Mail::DKIM::Verifier->new;
while (read(STDIN, my $block, 65536)) { $verifier->PRINT($block) }
$verifier->CLOSE;
for my $signature ($verifier->signatures) {
    print $signature->algorithm, ' ', $signature->result, "\n";
}
