#!/usr/bin/env escript
%%! +S 1 -kernel logger_level none
%% Runs scripted misfortunes against OTP's own supervisors and prints what happened as JSON:
%%
%%     escript supervisor.escript > supervisor.json
%%
%% The words are those of trees.py: +a started, !a did not start, ?a ignored its start, ~a:reason terminate ran,
%% -a:reason ended. Each step has the words it set off, the children it left, and the supervisor's exit reason.
-module(supervisor_outcomes).
-mode(compile).
-export([main/1, start_worker/1, init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

main(_) ->
    process_flag(trap_exit, true),
    Runs = [run(S) || S <- scenarios()],
    io:format("{\"otp\": \"~s\", \"scenarios\": [~n~s~n]}~n",
              [erlang:system_info(otp_release), lists:join(",\n", [json(R) || R <- Runs])]).

%% -- the scenarios ------------------------------------------------------------------------------------------

w(Id) -> w(Id, #{}).
w(Id, Opts) -> maps:merge(#{id => Id, restart => permanent, kind => plain}, Opts).
t(Id) -> w(Id, #{kind => trapper}).
sup(Id, Flags, Children) -> #{id => Id, restart => permanent, kind => sup, flags => Flags, children => Children}.
f(Strategy) -> f(Strategy, 5).
f(Strategy, Intensity) -> f(Strategy, Intensity, 60).
f(Strategy, Intensity, Period) -> #{strategy => Strategy, intensity => Intensity, period => Period}.
crash(Id) -> [crash, Id].
leave(Id, Reason) -> [leave, Id, Reason].

scenarios() ->
    Strategies = [one_for_one, one_for_all, rest_for_one],
    Reasons = [normal, shutdown, shutdown_why, odd, killed, crash],
    [scenario([S, " restarts"], f(S), [t(a), t(b), t(c)], [crash(b), crash(a), crash(c), stop]) || S <- Strategies] ++
    [scenario([S, " drops temporary children and starts ended ones again"], f(S),
              [w(a), w(e, #{restart => transient}), w(t, #{restart => temporary}), w(z)],
              [leave(e, normal), crash(a), crash(z), stop]) || S <- Strategies] ++
    [scenario([R, " child ends: ", Why], f(one_for_one), [w(a, #{restart => R}), w(b)],
              [leave(a, Why), stop]) || R <- [permanent, transient, temporary], Why <- Reasons] ++
    [scenario([S, " exceeds its intensity"], f(S, 2), [t(a), t(b), t(c)],
              [crash(b), crash(b), crash(b)]) || S <- Strategies] ++
    [scenario("intensity 0 gives up at once", f(one_for_one, 0), [w(a), w(b)], [crash(a)]),
     scenario("restarts further apart than the period do not add up", f(one_for_one, 1, 1), [w(a)],
              [crash(a), [wait, 2200], crash(a), [wait, 2200], crash(a), crash(a)]),
     scenario("giving up escalates", f(rest_for_one, 1),
              [w(a), sup(s, f(one_for_all, 1), [t(x), t(y)]), w(b)],
              [crash(x), crash(y), crash(x), crash(x)]),
     scenario("a transient supervisor that gives up stays down", f(one_for_one, 1),
              [(sup(s, f(one_for_one, 0), [w(x)]))#{restart => transient}, w(b)], [crash(x), stop]),
     scenario("a transient supervisor that is killed is restarted", f(one_for_one, 1),
              [(sup(s, f(one_for_one, 0), [w(x)]))#{restart => transient}, w(b)], [leave(s, killed), stop])] ++
    [scenario(["a restart that fails, ", S], f(S), [w(a), w(b), w(c), w(d)],
              [[fail, c, 1], crash(b), [fail, c, 2], crash(c), stop]) || S <- Strategies] ++
    [scenario(["restarts that fail exceed the intensity, ", S], f(S, 3), [t(a), t(b), t(c)],
              [[fail, b, 9], crash(b)]) || S <- Strategies] ++
    [with(first_fail, b, scenario("the second child does not start", f(one_for_one), [t(a), t(b), t(c)], [])),
     scenario("a supervisor below does not start again", f(one_for_one, 3),
              [w(a), sup(s, f(one_for_one, 0), [w(x), w(y)])],
              [[fail, y, 1], crash(x), stop]),
     with(first_ignore, t, scenario("children that ignore their start", f(one_for_all),
              [w(a), w(b), w(t, #{restart => temporary})],
              [[ignore, b], crash(a), [restart, b], stop]))] ++
    [scenario([A, ", transient"], (f(one_for_one))#{auto_shutdown => A},
              [t(a), w(s, #{restart => transient, significant => true}),
               w(u, #{restart => transient, significant => true})],
              [crash(s), leave(s, normal), leave(u, shutdown_why)]) || A <- [any_significant, all_significant]] ++
    [scenario([A, ", temporary"], (f(one_for_one))#{auto_shutdown => A},
              [w(s, #{restart => temporary, significant => true}),
               w(u, #{restart => temporary, significant => true}), t(a)],
              [crash(s), crash(u)]) || A <- [any_significant, all_significant]] ++
    [scenario("an operator's stop of a significant child is no end of its own",
              (f(one_for_one))#{auto_shutdown => any_significant},
              [w(s, #{restart => transient, significant => true}), w(a)],
              [[terminate, s], [restart, s], leave(s, normal)]),
     scenario("a significant child that its strategy stops has not ended by itself",
              (f(one_for_all))#{auto_shutdown => any_significant},
              [w(a), w(s, #{restart => transient, significant => true})], [crash(a), stop]),
     scenario("all_significant counts only those that run",
              (f(one_for_one))#{auto_shutdown => all_significant},
              [w(s, #{restart => transient, significant => true}),
               w(u, #{restart => transient, significant => true})],
              [[terminate, u], leave(s, normal)]),
     scenario("an escalation by auto_shutdown is a shutdown", f(one_for_one, 1),
              [(sup(s, (f(one_for_one))#{auto_shutdown => any_significant},
                    [w(x, #{restart => temporary, significant => true})]))#{restart => transient}, w(b)],
              [leave(x, normal), stop]),
     scenario("shutdown by time, brutally, and without an end", f(one_for_one),
              [w(a, #{kind => trapper, shutdown => 100, stop_ms => 400}),
               w(b, #{kind => trapper, shutdown => 400, stop_ms => 100}),
               w(c, #{kind => trapper, shutdown => brutal_kill}),
               w(d, #{kind => trapper, shutdown => infinity, stop_ms => 200})], [stop]),
     scenario("stop of a tree", f(one_for_one),
              [t(a), sup(s, f(one_for_one), [t(x), sup(q, f(one_for_one), [t(y)]), t(z)]), t(b)], [stop]),
     scenario("operations", f(one_for_one), [w(a), w(t, #{restart => temporary})],
              [[start, w(b)], [start, w(b)], [restart, b], [delete, b], [terminate, b], [terminate, b], [restart, b],
               [terminate, b], [delete, b], [delete, b], [terminate, t], [terminate, t], [restart, nobody],
               [fail, c, 1], [start, w(c)], [start, w(c)], [terminate, c], [fail, c, 1], [restart, c], [restart, c],
               stop]),
     scenario("a child that an operator stopped comes back with the strategy", f(one_for_all), [w(a), w(b), w(c)],
              [[terminate, b], crash(c), stop]),
     scenario("a child that an operator stopped comes back with the rest", f(rest_for_one), [w(a), w(b), w(c)],
              [[terminate, c], [terminate, a], crash(b), stop])].

with(Key, Value, Scenario) -> Scenario#{Key => Value}.

scenario(Name, Flags, Children, Steps) ->
    Words = lists:flatten([if is_atom(N) -> atom_to_list(N); true -> N end || N <- flat(Name)]),
    #{name => list_to_binary(Words), flags => Flags, children => Children, steps => Steps}.

flat([C | _] = Name) when is_integer(C) -> [Name];
flat(Name) -> Name.

%% -- one run ------------------------------------------------------------------------------------------------

run(#{flags := Flags, children := Children, steps := Steps} = Scenario) ->
    ets:new(script, [named_table, public]),
    [ets:insert(script, {{fail, Id}, 1}) || Id <- optional(first_fail, Scenario)],
    [ets:insert(script, {{ignore, Id}, true}) || Id <- optional(first_ignore, Scenario)],
    register(log, Log = spawn_link(fun() -> logger([], #{}, null) end)),
    Me = self(),
    spawn(fun() ->
              process_flag(trap_exit, true),
              R = supervisor:start_link(?MODULE, {sup, top, Flags, Children}),
              Me ! {started, R},
              receive {'EXIT', _, Why} -> Log ! {top_ended, list_to_binary(reason(Why))} end
          end),
    Started = receive {started, R} -> R end,
    settle(40),
    Outcome = case Started of
        {ok, Top} -> [outcome(ok, Top) | [step(Step, Top) || Step <- Steps]];
        {error, _} ->
            {Words, _} = take(),
            [#{words => Words, result => failed, children => [], ended => null}]
    end,
    unlink(Log), exit(Log, kill),
    settle(5),
    ets:delete(script),
    Scenario#{
        first_fail => nullable(optional(first_fail, Scenario)),
        first_ignore => nullable(optional(first_ignore, Scenario)),
        outcome => Outcome}.

optional(Key, Map) -> case Map of #{Key := V} -> [V]; _ -> [] end.
nullable([]) -> null;
nullable([X]) -> X.

step(Step, Top) ->
    Result = do(Step, Top),
    settle(60),
    outcome(Result, Top).

outcome(Result, Top) ->
    {Words, Ended} = take(),
    Children = case is_process_alive(Top) of
        true -> [[Id, state(Pid)] || {Id, Pid, _, _} <- lists:reverse(supervisor:which_children(Top))];
        false -> []
    end,
    #{words => Words, result => Result, children => Children, ended => Ended}.

state(restarting) -> restarting;
state(undefined) -> stopped;
state(Pid) when is_pid(Pid) -> running.

do([crash, Id], _) -> gen_server:cast(whereis(Id), crash), ok;
do([leave, Id, killed], _) -> exit(whereis(Id), kill), ok;
do([leave, Id, crash], _) -> gen_server:cast(whereis(Id), crash), ok;
do([leave, Id, shutdown_why], _) -> gen_server:cast(whereis(Id), {leave, {shutdown, why}}), ok;
do([leave, Id, Reason], _) -> gen_server:cast(whereis(Id), {leave, Reason}), ok;
do([fail, Id, N], _) -> ets:insert(script, {{fail, Id}, N}), ok;
do([ignore, Id], _) -> ets:insert(script, {{ignore, Id}, true}), ok;
do([wait, Ms], _) -> settle(Ms), ok;
do([start, Child], Top) -> result(supervisor:start_child(Top, spec(Child)));
do([terminate, Id], Top) -> result(supervisor:terminate_child(Top, Id));
do([restart, Id], Top) -> result(supervisor:restart_child(Top, Id));
do([delete, Id], Top) -> result(supervisor:delete_child(Top, Id));
do(stop, Top) ->
    Monitor = monitor(process, Top),
    exit_by_parent(Top),
    receive {'DOWN', Monitor, process, Top, _} -> ok end.

%% `shutdown` from the parent, as a supervisor above would send it.
exit_by_parent(Top) ->
    {links, Links} = process_info(Top, links),
    {dictionary, D} = process_info(Top, dictionary),
    [Parent | _] = proplists:get_value('$ancestors', D),
    true = lists:member(Parent, Links),
    exit_from(Parent, Top).

%% The message that the signal becomes, since the supervisor traps exits.
exit_from(Parent, Top) -> Top ! {'EXIT', Parent, shutdown}.

result(ok) -> ok;
result({ok, _}) -> ok;
result({error, {already_started, _}}) -> already;
result({error, already_present}) -> already;
result({error, Known}) when Known =:= not_found; Known =:= running; Known =:= restarting -> Known;
result({error, _}) -> failed.

settle(Ms) -> timer:sleep(Ms).

%% Hears everything in the order in which it happens: with one scheduler a word is sent before what it sets off.
logger(Words, Watched, Ended) ->
    receive
        {word, Word} -> logger([Word | Words], Watched, Ended);
        {watch, From, Id, Pid, Word} ->
            Monitor = monitor(process, Pid),
            From ! watched,
            logger([Word | Words], Watched#{Monitor => Id}, Ended);
        {'DOWN', Monitor, process, _, Reason} ->
            #{Monitor := Id} = Watched,
            logger([io_lib:format("-~s:~s", [Id, reason(Reason)]) | Words], Watched, Ended);
        {top_ended, Reason} -> logger(Words, Watched, Reason);
        {take, From} ->
            From ! {taken, [iolist_to_binary(W) || W <- lists:reverse(Words)], Ended},
            logger([], Watched, null)
    end.

take() ->
    log ! {take, self()},
    receive {taken, Words, Ended} -> {Words, Ended} end.

reason({boom, _}) -> "crash";
reason({shutdown, {failed_to_start_child, _, _}}) -> "failed";
reason({shutdown, Why}) -> lists:flatten(io_lib:format("shutdown(~p)", [Why]));
reason(Reason) -> lists:flatten(io_lib:format("~p", [Reason])).

%% -- the actors ---------------------------------------------------------------------------------------------

spec(#{id := Id, restart := Restart, kind := Kind} = Child) ->
    Base = #{id => Id, restart => Restart, significant => maps:get(significant, Child, false),
             start => {?MODULE, start_worker, [Child]},
             type => case Kind of sup -> supervisor; _ -> worker end},
    case Child of #{shutdown := S} -> Base#{shutdown => S}; _ -> Base end.

start_worker(#{kind := sup, id := Id, flags := Flags, children := Children}) ->
    supervisor:start_link({local, Id}, ?MODULE, {sup, Id, Flags, Children});
start_worker(#{id := Id} = Child) -> gen_server:start_link({local, Id}, ?MODULE, {worker, Child}, []).

say(Format, Args) -> log ! {word, lists:flatten(io_lib:format(Format, Args))}.

started(Id) ->
    log ! {watch, self(), Id, self(), "+" ++ atom_to_list(Id)},
    receive watched -> ok end.

init({sup, Id, Flags, Children}) ->
    Id =:= top orelse started(Id),
    {ok, {Flags, [spec(C) || C <- Children]}};
init({worker, #{id := Id, kind := Kind} = Child}) ->
    process_flag(trap_exit, Kind =:= trapper),
    case {ets:lookup(script, {fail, Id}), ets:lookup(script, {ignore, Id})} of
        {[{_, N}], _} when N > 0 ->
            ets:insert(script, {{fail, Id}, N - 1}),
            say("!~s", [Id]),
            {stop, told_to_fail};
        {_, [_]} -> say("?~s", [Id]), ignore;
        _ -> started(Id), {ok, Child}
    end.

handle_call(_, _, Child) -> {reply, ok, Child}.
handle_cast(crash, _) -> error(boom);
handle_cast({leave, Reason}, Child) -> {stop, Reason, Child}.
handle_info(_, Child) -> {noreply, Child}.

terminate(Reason, #{id := Id, kind := trapper} = Child) ->
    say("~~~s:~s", [Id, reason(Reason)]),
    timer:sleep(maps:get(stop_ms, Child, 0));
terminate(_, _) -> ok.

%% -- JSON ---------------------------------------------------------------------------------------------------

json(Map) when is_map(Map) ->
    Fields = [[json(K), ": ", json(V)] || {K, V} <- lists:sort(maps:to_list(Map))],
    ["{", lists:join(", ", Fields), "}"];
json(List) when is_list(List) -> ["[", lists:join(", ", [json(X) || X <- List]), "]"];
json(null) -> "null";
json(true) -> "true";
json(false) -> "false";
json(Atom) when is_atom(Atom) -> ["\"", atom_to_list(Atom), "\""];
json(N) when is_integer(N) -> integer_to_list(N);
json(Bin) when is_binary(Bin) -> ["\"", Bin, "\""].
