<#
.SYNOPSIS
    Installs DHP Gateway from this folder; no network is used. Run it in an administrator's PowerShell, in the unpacked archive.

.DESCRIPTION
    Each version lies in a folder of its own (C:\Program Files\DHP Gateway\VERSION) and "current" leads to the one in use: an upgrade is this
    script and a restart of the service. Settings, secret and logs are in C:\ProgramData\DHP Gateway: what they hold is not changed, but all of
    it is made the administrators' own, and what another account has put there is refused. Nothing is started.

.PARAMETER WinSW
    Sets up the service, too: the path of WinSW-x64.exe 2.12 (github.com/winsw/winsw).

.PARAMETER WinSWSha256
    The SHA-256 checksum of that file, as its publisher or the packer of this archive told it by another way than the file. Needed with -WinSW.

.PARAMETER Python
    The interpreter, of the minor version in the archive's name, installed for all users.

.EXAMPLE
    powershell -ExecutionPolicy Bypass -File install.ps1 -WinSW C:\Users\admin\Downloads\WinSW-x64.exe -WinSWSha256 CHECKSUM
#>
#Requires -Version 5.1
#Requires -RunAsAdministrator
[CmdletBinding()]
param(
    [string] $WinSW,
    [string] $WinSWSha256,
    [string] $Python = 'python'
)
Set-StrictMode -Version 2.0
$ErrorActionPreference = 'Stop'

$service = 'dhp-gateway'
$programs = Join-Path $env:ProgramFiles 'DHP Gateway'
$data = Join-Path $env:ProgramData 'DHP Gateway'
$logs = Join-Path $data 'logs'
$version = (Get-Content (Join-Path $PSScriptRoot 'VERSION') -TotalCount 1).Trim()
$kind = (Get-Content (Join-Path $PSScriptRoot 'KIND') -TotalCount 1).Trim()

# Runs a program; its failure is ours. (Windows PowerShell goes on otherwise.)
function Invoke-Program {
    $program = $args[0]
    $arguments = @($args | Select-Object -Skip 1)
    & $program $arguments
    if ($LASTEXITCODE -ne 0) { throw "$program failed with exit code $LASTEXITCODE." }
}

# Whose folders and files are believed: the administrators', the system's. By number: their names are translated on some Windows.
$administrators = 'S-1-5-32-544'
$system = 'S-1-5-18'
# LocalService writes the logs.
$localService = 'S-1-5-19'

function Test-Link($item) { return [bool]($item.Attributes -band [System.IO.FileAttributes]::ReparsePoint) }

# Every user may make folders in ProgramData: one that was there before us may hold another token URL, or be open to its maker.
function Assert-Ours($path, $also) {
    $item = Get-Item -LiteralPath $path -Force -ErrorAction SilentlyContinue
    if (-not $item) { return }
    if (Test-Link $item) { throw "$path leads elsewhere (a link or junction). See who made it, and remove it." }
    $owner = (Get-Acl -LiteralPath $path).GetOwner([System.Security.Principal.SecurityIdentifier]).Value
    if (@($administrators, $system, $also) -notcontains $owner) {
        throw "$path belongs to neither the administrators nor the system ($owner). See who made it and what is in it, and remove it."
    }
}

# A folder and all in it, by our own steps: -Recurse of Windows PowerShell may follow links.
function Assert-AllOurs($folder, $also) {
    Assert-Ours $folder $also
    if (-not (Test-Path -LiteralPath $folder -PathType Container)) { return }
    foreach ($item in Get-ChildItem -LiteralPath $folder -Force) {
        $within = if ($item.FullName -eq $logs) { $localService } else { $also }
        if ($item.PSIsContainer) { Assert-AllOurs $item.FullName $within } else { Assert-Ours $item.FullName $within }
    }
}

# --- is it all there, unchanged, and for this machine? ---
foreach ($line in Get-Content (Join-Path $PSScriptRoot 'SHA256SUMS')) {
    $sum, $name = $line -split '  ', 2
    $file = Join-Path $PSScriptRoot $name
    if (-not (Test-Path -LiteralPath $file) -or (Get-FileHash -LiteralPath $file -Algorithm SHA256).Hash -ne $sum) {
        throw "$name is not what was packed. Fetch the archive again and compare its checksum."
    }
}
$ask = "import sys, platform; print('cp%d%d-%s-%s' % (*sys.version_info[:2], sys.platform, platform.machine()))"
$here = Invoke-Program $Python -c $ask
if ($here -ne $kind) {
    throw "This archive is for $kind, and $Python is $here. Name the right interpreter with -Python, or pack for this one."
}
$base = Invoke-Program $Python -c 'import sys; print(sys.base_prefix)'
if ($base.StartsWith($env:SystemDrive + '\Users\', [StringComparison]::OrdinalIgnoreCase)) {
    throw "$Python is installed for one person only ($base), and the service is another account. Install Python for all users."
}

if ($WinSW) {
    if (-not $WinSWSha256) { throw 'Name the checksum of WinSW-x64.exe with -WinSWSha256; it becomes a service and must be the right file.' }
    if ((Get-FileHash -LiteralPath $WinSW -Algorithm SHA256).Hash -ne $WinSWSha256.Trim()) {
        throw "$WinSW is not the file with the checksum $WinSWSha256. Fetch it again."
    }
}
Assert-Ours $programs
Assert-AllOurs $data

# --- the version, beside the ones before ---
$target = Join-Path $programs $version
$running = Get-Service -Name $service -ErrorAction SilentlyContinue
if ($running -and $running.Status -ne 'Stopped' -and (Test-Path -LiteralPath $target)) {
    throw "$version is in use. Stop the service first: Stop-Service $service"
}
Write-Host "Installing $version into $target..."
if (Test-Path -LiteralPath $target) { Remove-Item -LiteralPath $target -Recurse -Force }
New-Item -ItemType Directory -Path $programs -Force | Out-Null
# Without pip: it is not needed any more afterwards, and less is better. Ours runs from this folder.
Invoke-Program $Python -m venv --without-pip $target
$interpreter = Join-Path $target 'Scripts\python.exe'
$env:PIP_CONFIG_FILE = 'nul'
# --require-hashes: pip takes exactly what the lock names.
Invoke-Program $interpreter (Join-Path $PSScriptRoot 'pip') --isolated --no-cache-dir --disable-pip-version-check install --quiet `
    --no-index --find-links (Join-Path $PSScriptRoot 'wheels') --no-deps --only-binary ':all:' `
    --require-hashes --requirement (Join-Path $PSScriptRoot 'requirements.lock')
$share = Join-Path $target 'share'
New-Item -ItemType Directory -Path $share -Force | Out-Null
foreach ($part in 'config', 'docs', 'windows', 'LICENSE', 'NOTICE', 'CHANGELOG.md') {
    Copy-Item -LiteralPath (Join-Path $PSScriptRoot $part) -Destination $share -Recurse -Force
}
Invoke-Program $interpreter -m gateway --version
$current = Join-Path $programs 'current'
# Only the link: Remove-Item would, in Windows PowerShell, take along what it leads to.
if (Test-Path -LiteralPath $current) { [System.IO.Directory]::Delete($current) }
New-Item -ItemType Junction -Path $current -Target $target | Out-Null

# --- the command, to be typed as it stands ---
# A folder of its own: the one of the programs would put another python.exe in everybody's way.
$bin = Join-Path $programs 'bin'
New-Item -ItemType Directory -Path $bin -Force | Out-Null
Set-Content -LiteralPath (Join-Path $bin 'dhp-gateway.cmd') -Encoding ASCII -Value '@"%~dp0..\current\Scripts\dhp-gateway.exe" %*'
$registry = 'HKLM:\SYSTEM\CurrentControlSet\Control\Session Manager\Environment'
# As it is written, with the %NAMES% in it.
$path = (Get-Item -LiteralPath $registry).GetValue('Path', '', 'DoNotExpandEnvironmentNames')
if (($path -split ';') -notcontains $bin) {
    Set-ItemProperty -LiteralPath $registry -Name 'Path' -Type ExpandString -Value "$($path.TrimEnd(';'));$bin"
    # Tells the desktop, so that consoles opened from now on know it.
    [Environment]::SetEnvironmentVariable('DHP_GATEWAY_INSTALLING', $null, 'Machine')
}
if (($env:Path -split ';') -notcontains $bin) { $env:Path = "$env:Path;$bin" }

# --- settings and secret ---
New-Item -ItemType Directory -Path $data -Force | Out-Null
# Closed before anything is put there, with no right left that was given before; what comes later inherits.
$rights = New-Object System.Security.AccessControl.DirectorySecurity
$rights.SetAccessRuleProtection($true, $false)
foreach ($number in $administrators, $system) {
    $who = New-Object System.Security.Principal.SecurityIdentifier $number
    $rights.AddAccessRule((New-Object System.Security.AccessControl.FileSystemAccessRule $who, 'FullControl', 'ContainerInherit,ObjectInherit', 'None', 'Allow'))
}
Set-Acl -LiteralPath $data -AclObject $rights
# Again, now that no other account can add anything: it may have been made in between.
Assert-AllOurs $data
foreach ($folder in (Join-Path $data 'secrets'), $logs) {
    New-Item -ItemType Directory -Path $folder -Force | Out-Null
}
$settings = Join-Path $data 'gateway.yaml'
if (-not (Test-Path -LiteralPath $settings)) { Copy-Item -LiteralPath (Join-Path $PSScriptRoot 'windows\gateway.yaml') -Destination $settings }
$secret = Join-Path $data 'secrets\dhp_client_secret'
if (-not (Test-Path -LiteralPath $secret)) { New-Item -ItemType File -Path $secret | Out-Null }
# Everything in it is the administrators', with the folder's rights and no other; /L: a link itself, never what it leads to.
Invoke-Program icacls $data /setowner "*$administrators" /T /L /quiet
Invoke-Program icacls (Join-Path $data '*') /reset /T /L /quiet

# --- the service ---
if ($WinSW) {
    $folder = Join-Path $programs 'service'
    $wrapper = Join-Path $folder "$service.exe"
    New-Item -ItemType Directory -Path $folder -Force | Out-Null
    Copy-Item -LiteralPath (Join-Path $PSScriptRoot 'windows\dhp-gateway.xml') -Destination $folder -Force
    if (-not $running) {
        Copy-Item -LiteralPath $WinSW -Destination $wrapper -Force
        # The copy: only an administrator can exchange that one.
        if ((Get-FileHash -LiteralPath $wrapper -Algorithm SHA256).Hash -ne $WinSWSha256.Trim()) {
            Remove-Item -LiteralPath $wrapper -Force
            throw "$WinSW was exchanged while it was being copied."
        }
        Invoke-Program $wrapper install
    }
}
if ($WinSW -or $running) {
    # An identity of the service's own, beside the account that it shares with others; only then can it be named below.
    Invoke-Program sc.exe sidtype $service unrestricted
    Invoke-Program icacls $data /grant "NT SERVICE\${service}:(OI)(CI)RX" /quiet
    Invoke-Program icacls $logs /grant "NT SERVICE\${service}:(OI)(CI)M" /quiet
}

Write-Host @"
Installed: $current, with the command dhp-gateway
Next:
  1. the client secret, alone, into $secret
  2. environment and client_id into $settings
  3. dhp-gateway check    (it finds that file by itself)
  4. Start-Service $service    (after an upgrade: Restart-Service $service)
  5. http://127.0.0.1:9464/status
"@
